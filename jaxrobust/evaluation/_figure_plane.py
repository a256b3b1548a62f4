"""The trade-off as a plane of two accuracies."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.drawing import style, subplots
from jaxrobust.evaluation._front import front


class Point(NamedTuple):
    """One method in the trade-off plane; accuracies are `Accuracy.value` and its interval."""

    label: str
    clean: Any
    robust: Any


def draw_tradeoff(
    path: pathlib.Path,
    points: Sequence[Point],
    *,
    title: str,
    robust_label: str,
    clean_label: str = "clean accuracy (%)",
) -> None:
    """A PNG of clean against robust accuracy, one labelled point per method, and the Pareto front.

    Args:
      path: the file to write.
      points: accuracies with intervals, drawn as error bars.
      title: the title of the figure.
      robust_label: the label of the vertical axis; it names the attack and eps.
      clean_label: the label of the horizontal axis.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    figure, axis = subplots(figsize=(7.6, 4.8))
    for number, point in enumerate(points):
        clean, robust = (100 * np.array(v[:3]) for v in (point.clean, point.robust))
        axis.errorbar(
            clean[0],
            robust[0],
            xerr=[[clean[0] - clean[1]], [clean[2] - clean[0]]],
            yerr=[[robust[0] - robust[1]], [robust[2] - robust[0]]],
            fmt=style(number)["marker"],
            color=style(number)["color"],
            markersize=8,
            elinewidth=1,
            capsize=2,
        )
    axis.set(xlabel=clean_label, ylabel=robust_label)
    figure.suptitle(title, fontsize=11)
    axis.grid(alpha=0.3)
    places = front([p.clean[0] for p in points], [p.robust[0] for p in points])
    best = [points[i] for i in places]
    axis.step(
        [100 * point.clean[0] for point in best],
        [100 * point.robust[0] for point in best],
        where="pre",
        color="0.6",
        linestyle="--",
        linewidth=1,
        zorder=0,
    )
    _label_points(axis, points)
    figure.savefig(path, dpi=150)


def _label_points(axis: Any, points: Sequence[Point]) -> None:
    """Names beside the plot, in the order of the points' heights, so that none overlap."""
    low, high = axis.get_ylim()
    many = len(points) > 11  # one line each, or they would not fit
    gap, above = (min(0.05, 1 / len(points)) if many else 0.085), 1.0
    order = sorted(range(len(points)), key=lambda i: -points[i].robust[0])
    for rank, number in enumerate(order):
        clean, robust = 100 * points[number].clean[0], 100 * points[number].robust[0]
        room_below = gap * (len(order) - 1 - rank)
        height = max(min((robust - low) / (high - low), above - gap), room_below)
        above = height
        colour = style(number)["color"]
        axis.annotate(
            f"{points[number].label}{'  ' if many else chr(10)}{clean:.1f} / {robust:.1f}",
            xy=(clean, robust),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=7.5 if many else 9,
            color=colour,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "lw": 0.7,
                "shrinkB": 5,
                "relpos": (0, 0.5),  # to the label's left edge: across no other label
            },
        )
