"""Figures with a line per method: over epochs, over eps, over certified radii."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.drawing import style, subplots


class Curve(NamedTuple):
    """A line: horizontal positions, and shares in [0, 1] there with or without an interval.

    Attributes:
      x: `[n]`.
      y: `[n]`.
      low: `[n]` lower ends, or `None`.
      high: `[n]` upper ends, or `None`.
    """

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def draw_curves(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    title: str,
    axis_label: str,
    steps: bool = False,
) -> None:
    """A PNG with a line per method, in one panel per quantity.

    Args:
      path: the file to write.
      panels: by quantity (the label of the vertical axis), the curve of each method. A method has
        one colour in all panels.
      title: the title of the figure.
      axis_label: the label of the horizontal axis, with its unit.
      steps: whether to draw steps without markers, for shares that stay constant between positions,
        such as certified ones.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    width = 5.6 if len(panels) == 1 else 4.5 * len(panels)
    longest = max(map(len, names), default=0)
    figure, axes = subplots(
        1, len(panels), figsize=(width + 1 + 0.085 * longest, 4.4), squeeze=False,
    )  # fmt: skip
    lines: dict[str, Any] = {}
    for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
        for name, curve in curves.items():
            looks = style(names.index(name))
            y = 100 * np.asarray(curve.y)
            if steps:
                looks.pop("marker")
                (lines[name],) = axis.plot(curve.x, y, drawstyle="steps-post", **looks)
                continue
            (lines[name],) = axis.plot(curve.x, y, markersize=5, linewidth=1.4, **looks)
            if curve.low is not None and curve.high is not None:
                ends = 100 * np.array([curve.low, curve.high])
                axis.fill_between(curve.x, *ends, color=looks["color"], alpha=0.1, linewidth=0)
        axis.set(xlabel=axis_label, ylabel=label)
        if min((min(curve.y) for curve in curves.values()), default=0) < 0.5:
            axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    shown = [name for name in names if name in lines]
    figure.legend([lines[n] for n in shown], shown, fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=110)
