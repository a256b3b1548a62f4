"""Figures: adversarial examples as images, one number per attack, radius or method."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust.drawing import COLOURS, subplots
from jaxrobust.evaluation._intervals import accuracy


def class_name(number: int, names: Sequence[str], *, prefix: str = "", longest: int = 14) -> str:
    """The label of a class in a figure: its shortened name, or its number."""
    if number >= len(names):
        return f"{prefix}{number}"
    name = str(names[number]).replace("$", r"\$")  # no mathematics
    return name if len(name) <= longest else name[: longest - 1] + "…"


def draw_adversarial_images(
    path: pathlib.Path,
    images: np.ndarray,
    adversarial: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    title: str,
    columns: int = 8,
    class_names: Sequence[str] = (),
) -> None:
    """A PNG with clean images, adversarial images and the magnified perturbations.

    Args:
      path: the file to write.
      images: `[n, h, w, c]` in [0, 1].
      adversarial: `[n, h, w, c]` in [0, 1].
      labels: `[n]`.
      predictions: `[n]` classes of the adversarial images.
      title: the title of the figure; it names attack and eps.
      columns: the number of examples shown, from the first on.
      class_names: names by class; without them, the numbers are shown.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    columns = min(columns, len(images))
    delta = adversarial[:columns] - images[:columns]
    largest = float(np.abs(delta).max()) or 1.0
    rows = [
        ("clean", images[:columns], labels),
        ("adversarial", adversarial[:columns], predictions),
        (f"change x {0.5 / largest:.0f}\n(grey: none)", delta / largest / 2 + 0.5, None),
    ]
    figure, axes = subplots(3, columns, figsize=(1.25 * columns + 0.8, 4.7), squeeze=False)
    for row, (name, pictures, classes) in zip(axes, rows, strict=True):
        for column, (axis, picture) in enumerate(zip(row, pictures, strict=True)):
            grey = picture.shape[-1] == 1
            axis.imshow(
                picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1
            )
            axis.set(xticks=[], yticks=[])
            if classes is not None:
                wrong = classes[column] != labels[column]
                prefix = "class " if classes is labels else "predicted "
                axis.set_title(
                    class_name(int(classes[column]), class_names, prefix=prefix),
                    fontsize=9 if not class_names else 8,
                    color=COLOURS[1] if wrong else "black",
                )
        row[0].set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)


def draw_cascade(path: pathlib.Path, masks: Mapping[str, np.ndarray], *, title: str) -> None:
    """A PNG of the accuracy after each attack of an ensemble, with 95 % intervals.

    Args:
      path: the file to write.
      masks: `[n]` bool by name, the points that are still right, starting with the clean ones.
      title: the title of the figure, to which the number of points is added.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    figure, axis = subplots(figsize=(6.4, 4))
    found = np.array([accuracy(mask)[:3] for mask in masks.values()])
    values, low, high = 100 * found.T
    colours = [COLOURS[5], *[COLOURS[0]] * (len(values) - 1)]
    ends = {"yerr": (values - low, high - values), "ecolor": "0.35", "capsize": 3}
    bars = axis.bar(list(masks), values, color=colours, **ends)
    axis.bar_label(bars, [f"{v:.1f}" for v in values], padding=2, fontsize=9)
    images = len(next(iter(masks.values())))
    axis.set(ylabel="accuracy after the attack (%), 95 % interval", ylim=(0, 108))
    axis.set_title(f"{title}, {images:,} images", fontsize=11)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    figure.savefig(path, dpi=150)


def draw_sweep(path: pathlib.Path, points: Sequence[tuple[float, Any]], *, title: str) -> None:
    """A PNG of robust accuracy against eps.

    Args:
      path: the file to write.
      points: pairs of eps (image units) and `Accuracy`, by rising eps.
      title: the title of the figure; it names norm and attack.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    figure, axis = subplots(figsize=(6.4, 4))
    radii = [eps for eps, _ in points]
    value, low, high = (100 * np.array([a[i] for _, a in points]) for i in range(3))
    axis.fill_between(radii, low, high, alpha=0.2, color=COLOURS[0], label="95 % interval")
    axis.plot(radii, value, "o-", color=COLOURS[0], label="robust accuracy")
    axis.set(xlabel="eps (image units)", ylabel="robust accuracy (%)", title=title)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=150)


def draw_bars(
    path: pathlib.Path, parts: Mapping[str, Mapping[str, float]], *, title: str, label: str
) -> None:
    """A PNG of one number per method as horizontal bars, each made of one or more parts.

    Args:
      path: the file to write.
      parts: by part (named in the legend), its share of each method's number; the same methods
        in all.
      title: the title of the figure.
      label: the label of the horizontal axis, with its unit.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    methods = list(next(iter(parts.values())))
    height = 1.3 + 0.32 * len(methods)
    figure, axis = subplots(figsize=(7.6, height))
    ends = np.zeros(len(methods))
    for colour, (name, values) in zip(
        (COLOURS[0], COLOURS[5], COLOURS[4]), parts.items(), strict=False
    ):
        widths = np.array([values[method] for method in methods])
        bars = axis.barh(methods, widths, left=ends, color=colour, label=name)
        ends = ends + widths
    axis.bar_label(bars, [f"{end:.3g}" for end in ends], padding=3, fontsize=9)
    axis.invert_yaxis()
    axis.set(xlabel=label, title=title)
    axis.margins(x=0.12)
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    if len(parts) > 1:
        figure.legend(fontsize=8, loc="outside lower right", ncols=len(parts))
    figure.savefig(path, dpi=120)
