"""Accuracies of each class as a heat map."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrobust.drawing import subplots
from jaxrobust.evaluation._figures import class_name

NUMBERED = 20  # classes whose shares are also written as numbers


def draw_classes(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str,
    class_names: Sequence[str] = (),
) -> None:
    """A PNG of classes by methods, in one panel per quantity; dark means low.

    Args:
      path: the file to write.
      panels: by quantity (over the panel), the shares in [0, 1] of each class by method, the
        same methods in all.
      title: the title of the figure.
      class_names: names by class; without them, the numbers are shown.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    methods = list(next(iter(panels.values())))
    classes = max(len(shares) for shares in next(iter(panels.values())).values())
    numbered = classes <= NUMBERED
    width = (0.46 * classes if numbered else 6.0) * len(panels) + 2.2
    height = 1.7 + 0.34 * len(methods) + (0.9 if class_names and numbered else 0)
    figure, axes = subplots(
        1, len(panels), figsize=(width, height), squeeze=False, sharey=True,
    )  # fmt: skip
    for axis, (label, shares) in zip(axes[0], panels.items(), strict=True):
        values = 100 * np.array([shares[name] for name in methods], float)
        image = axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axis.set(xlabel="class", yticks=range(len(methods)), yticklabels=methods)
        axis.set_title(label, fontsize=9)
        if not numbered:
            continue
        if class_names:
            names = [class_name(number, class_names) for number in range(classes)]
            axis.set_xticks(range(classes), names, rotation=90)
            axis.set_xlabel("")
        else:
            axis.set_xticks(range(classes))
        for (row, column), value in np.ndenumerate(values):
            text = "" if np.isnan(value) else f"{value:.0f}"
            colour = "white" if value < 55 else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="accuracy (%)", pad=0.01, fraction=0.03)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=120)
