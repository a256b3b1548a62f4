"""Methods as lines in the plane of two accuracies, with a point for each value of their knob."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.drawing import style, subplots
from jaxrobust.evaluation._front import front

OFFSETS = [(9, 4), (9, -7), (-9, 4), (-9, -7), (0, 10), (0, -12), (14, 0), (-14, 0)]  # points
INSIDE = 6  # lines whose legend finds a place among them


class Line(NamedTuple):
    """A method in the trade-off plane.

    Attributes:
      name: the name of the method.
      knob: the setting that its points differ in, such as "beta"; empty for a single point.
      values: `[n]` of the knob, as texts, in the order of the line.
      clean: `[n, 3]` accuracy with the ends of its interval.
      robust: `[n, 3]` likewise.
    """

    name: str
    knob: str
    values: Sequence[str]
    clean: Any
    robust: Any


def draw_fronts(
    path: pathlib.Path,
    lines: Sequence[Line],
    *,
    title: str,
    clean_label: str,
    robust_label: str,
    bands: bool,
) -> None:
    """A PNG of clean against robust accuracy: a line per method, with points labelled by its knob.

    Points on the front of all methods are filled and the staircase that they dominate is shaded.

    Args:
      path: the file to write.
      lines: the methods, with shares in [0, 1].
      title: the title of the figure.
      clean_label: the label of the horizontal axis.
      robust_label: the label of the vertical axis; it names the attack and eps.
      bands: draw the intervals as bands, and those of single points as bars; for ranges over seeds.
        Otherwise a cross in the corner shows their mean width.

    Returns:
      None.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    many = len(lines) > INSIDE
    figure, axis = subplots(figsize=(8.6 if many else 6.4, 4.8))
    clean, robust = (
        100 * np.concatenate([np.reshape(getattr(line, name), (-1, 3)) for line in lines])
        for name in ("clean", "robust")
    )
    places = front(clean[:, 0], robust[:, 0])
    best, first = set(places), 0
    for number, line in enumerate(lines):
        count = len(line.values)
        own = slice(first, first + count)
        inside = [place - first in range(count) for place in places]
        filled = [place - first for place, here in zip(places, inside, strict=True) if here]
        _draw_line(axis, number, line, clean[own], robust[own], filled, bands=bands)
        first += count
    axis.margins(x=0.06, y=0.07)
    if not bands:
        _typical(axis, clean, robust)
    _shade(axis, clean[places, 0], robust[places, 0])
    axis.set(xlabel=clean_label, ylabel=robust_label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.set_title(title, fontsize=10.5, loc="left")
    beside = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)} if many else {"loc": "best"}
    axis.legend(fontsize=9, frameon=False, handlelength=2.2, **beside)
    figure.canvas.draw()  # places are final: labels are set by pixels
    _label(figure, axis, lines, clean[:, 0], robust[:, 0], best)
    figure.savefig(path, dpi=170)


def _draw_line(
    axis: Any,
    number: int,
    line: Line,
    clean: np.ndarray,
    robust: np.ndarray,
    filled: Sequence[int],
    *,
    bands: bool,
) -> None:
    looks, single = style(number), len(clean) == 1
    colour = looks["color"]
    label = f"{line.name}, {line.knob}" if line.knob else line.name
    axis.plot(
        clean[:, 0],
        robust[:, 0],
        linewidth=1.6,
        markersize=6.5,
        markerfacecolor="white",
        markeredgewidth=1.4,
        zorder=3,
        label=label,
        **(looks | {"linestyle": "" if single else looks["linestyle"]}),
    )
    axis.plot(
        clean[filled, 0],
        robust[filled, 0],
        linestyle="",
        marker=looks["marker"],
        color=colour,
        markersize=6.5,
        markeredgewidth=1.4,
        zorder=4,
    )
    if bands and single:
        errors = [np.abs(ends[:, 1:] - ends[:, :1]).T for ends in (clean, robust)]
        axis.errorbar(
            clean[:, 0], robust[:, 0], xerr=errors[0], yerr=errors[1], fmt="none", color=colour,
            elinewidth=1, zorder=2,
        )  # fmt: skip
    elif bands:
        around = [np.concatenate([ends[:, 1], ends[::-1, 2]]) for ends in (clean, robust)]
        axis.fill(*around, color=colour, alpha=0.13, linewidth=0, zorder=1)


def _typical(axis: Any, clean: np.ndarray, robust: np.ndarray) -> None:
    """A cross in the lower left corner, as wide and as high as the mean interval."""
    halves = [float((ends[:, 2] - ends[:, 1]).mean() / 2) for ends in (clean, robust)]
    limits = axis.get_xlim(), axis.get_ylim()
    place = [
        low + 0.03 * (high - low) + half for (low, high), half in zip(limits, halves, strict=True)
    ]
    axis.errorbar(
        *place, xerr=halves[0], yerr=halves[1], fmt="none", color="0.4", elinewidth=1.2,
        capsize=2.5, zorder=2, label="95 % interval (mean)",
    )  # fmt: skip


def _shade(axis: Any, clean: np.ndarray, robust: np.ndarray) -> None:
    """The staircase under the overall front."""
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    x = np.concatenate([[left], clean, clean[-1:]])
    y = np.concatenate([robust[:1], robust, [low]])
    axis.fill_between(x, y, low, step="pre", color="0.5", alpha=0.08, linewidth=0, zorder=0)
    axis.step(
        x, y, where="pre", color="0.55", linewidth=1, linestyle=(0, (4, 3)), zorder=1.5,
        label="overall front",
    )  # fmt: skip
    axis.set(xlim=(left, right), ylim=(low, high))


def _label(
    figure: Any,
    axis: Any,
    lines: Sequence[Line],
    clean: np.ndarray,
    robust: np.ndarray,
    best: set[int],
) -> None:
    """The knob's value beside each point, placed where it covers the fewest points and labels."""
    scale = figure.dpi / 72
    points = axis.transData.transform(np.stack([clean, robust], -1))
    frame, taken = axis.get_window_extent(), _along(lines, points)
    names = [
        (number, value if line.knob else "")
        for number, line in enumerate(lines)
        for value in line.values
    ]
    boxes: list[np.ndarray] = []
    for place, (number, text) in enumerate(names):
        if not text:
            continue
        half = np.array([2.6 * len(text) + 1, 4.2]) * scale

        def cost(offset: tuple[float, float], place: int = place, half: Any = half) -> float:
            centre = points[place] + _centre(offset, half, scale)
            covered = np.all(np.abs(taken - centre) < half + 2 * scale, -1).sum()
            near = sum(2 * np.clip(half + size - np.abs(at - centre), 0, None).prod() > 0
                       for at, size in boxes)  # fmt: skip
            out = not (
                frame.x0 < centre[0] - half[0]
                and centre[0] + half[0] < frame.x1
                and frame.y0 < centre[1] - half[1]
                and centre[1] + half[1] < frame.y1
            )
            return covered + 8 * near + 50 * out

        offset = min(OFFSETS, key=cost)
        centre = _centre(offset, half, scale)
        boxes.append(np.stack([points[place] + centre, half]))
        axis.annotate(
            text,
            (clean[place], robust[place]),
            xytext=centre / scale,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold" if place in best else "normal",
            color=style(number)["color"],
            zorder=5,
        )


def _centre(offset: tuple[float, float], half: np.ndarray, scale: float) -> np.ndarray:
    """The offset of a label's centre from its point, in pixels."""
    x, y = np.array(offset) * scale
    return np.array([x + np.sign(x) * half[0] * 0.8, y])


def _along(lines: Sequence[Line], points: np.ndarray) -> np.ndarray:
    """Positions on all lines, in pixels, with the points themselves repeated."""
    found, first = [points, points, points], 0
    for line in lines:
        own = points[first : first + len(line.values)]
        first += len(line.values)
        share = np.linspace(0, 1, 12)[:, None, None]
        found.append((own[:-1] * (1 - share) + own[1:] * share).reshape(-1, 2))
    return np.concatenate(found)
