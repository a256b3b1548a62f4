"""The lines of a trade-off, for the figure, the table and the comparison of fronts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.commands._members import Members, cell, numbers_on, rows_of
from jaxrobust.evaluation import (
    FrontComparison,
    Line,
    Number,
    Row,
    compare_fronts,
    front,
    hypervolume,
    over_seeds,
    robust_at,
    unpacked_right,
)

ROUND = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MOST = 5  # clean accuracies of a table


class Plane(NamedTuple):
    """Two columns of the table.

    Attributes:
      clean: the column on the horizontal axis.
      robust: the column on the vertical axis.
    """

    clean: str
    robust: str


class Settings(NamedTuple):
    """The settings of tables of fronts.

    Attributes:
      reference: corner of the dominated area, a clean and a robust accuracy.
      clean_at: clean accuracies at which robust ones are shown; empty for round ones.
      compared: pairs of lines; empty to compare the best line with every other one.
    """

    reference: tuple[float, float] = (0.0, 0.0)
    clean_at: tuple[float, ...] = ()
    compared: tuple[tuple[str, str], ...] = ()


def settings_in(results: Mapping[str, Any]) -> Settings:
    """The settings that `results.json` holds under "fronts"."""
    held = results.get("fronts", {})
    reference = held.get("reference", (0.0, 0.0))
    pairs = tuple((first, second) for first, second in held.get("compared", ()))
    return Settings((reference[0], reference[1]), tuple(held.get("clean_at", ())), pairs)


def plane_in(results: Mapping[str, Any]) -> Plane | None:
    """The first plane of `results.json`: the one that it names, or the usual one of its rows."""
    planes = results.get("fronts", {}).get("planes") or []
    if planes:
        return Plane(*planes[0])
    members = results["members"].values()
    return usual_plane([row for member in members for rows in rows_of(member) for row in rows])


def usual_plane(rows: Sequence[Row]) -> Plane | None:
    """Clean accuracy against that of the first AutoAttack, or else the worst of PGD."""
    for kind in ("autoattack", "pgd"):
        for row in rows:
            if row.kind == kind:
                return Plane("clean", row.numbers[-1].column)
    return None


class Measured(NamedTuple):
    """A line with all its measurements.

    Attributes:
      line: the line for figures.
      seeds: `[points, seeds, 2]` clean and robust accuracies.
      right: clean and robust masks `[points, seeds, images]`, or `None` where rows have none.
      of: digests of the images and the labels of the masks.
    """

    line: Line
    seeds: np.ndarray
    right: tuple[np.ndarray, np.ndarray] | None
    of: tuple[str, ...] = ()


def measured_lines(members: Members, plane: Plane) -> list[Measured]:
    """The lines of a trade-off, in the order of its members; a single member is one point.

    Args:
      members: as in `results.json`.
      plane: two columns; members without both are left out.

    Returns:
      The lines.
    """
    lines: dict[str, list[tuple[str, str, list[list[Row]]]]] = {}
    for name, member in members.items():
        runs = rows_of(member)
        if numbers_on(runs, plane) is None:
            continue
        sweep = member.get("sweep") or {"line": name, "knob": "", "value": None}
        value = "" if sweep["value"] is None else f"{sweep['value']:.4g}"
        lines.setdefault(sweep["line"], []).append((sweep["knob"], value, runs))
    return [_measured(name, points, plane) for name, points in lines.items()]


def _measured(
    name: str, points: Sequence[tuple[str, str, list[list[Row]]]], plane: Plane
) -> Measured:
    found = [numbers_on(runs, plane) or [] for _, _, runs in points]
    clean, robust = (
        np.array([_ends(over_seeds([numbers[axis] for numbers in seeds])) for seeds in found])
        for axis in (0, 1)
    )
    seeds = min(map(len, found))
    values = [[[n.value for n in numbers] for numbers in each[:seeds]] for each in found]
    line = Line(name, points[0][0], [value for _, value, _ in points], clean, robust)
    right, of = _right([runs[:seeds] for *_, runs in points], plane)
    return Measured(line, np.array(values), right, of)


def _ends(number: Number) -> tuple[float, float, float]:
    return number.value, number.low, number.high


def _right(
    points: Sequence[list[list[Row]]], plane: Plane
) -> tuple[tuple[np.ndarray, np.ndarray] | None, tuple[str, ...]]:
    """Masks of all points from the rows that measured the robust accuracy; of which images."""
    found: list[list[list[np.ndarray]]] = []
    of = set()
    for runs in points:
        found.append([])
        for rows in runs:
            row = next((r for r in rows if r.number(plane.robust) and "right" in r.detail), None)
            masks = {} if row is None else unpacked_right(row.detail["right"])
            if row is None or not set(plane) <= masks.keys():
                return None, ()
            of.add(tuple(row.evaluated.get(what, "") for what in ("images", "labels")))
            found[-1].append([masks[column] for column in plane])
    lengths = {len(mask) for runs in found for masks in runs for mask in masks}
    if len(lengths) != 1 or len(of) != 1:
        return None, ()
    both = np.array(found)
    return (both[:, :, 0], both[:, :, 1]), of.pop()


def fronts_table(lines: Sequence[Measured], settings: Settings, plane: Plane) -> list[list[str]]:
    """Each line's dominated area, and its robust accuracy at given clean accuracies.

    Args:
      lines: the lines, with or without a sweep.
      settings: reference point and clean accuracies.
      plane: of the lines; the heading names its horizontal axis.

    Returns:
      Cells by row, the heading first. "-" where a line has no points on both sides of a clean
      accuracy. Areas are in per cent of the rectangle between the reference point and 100 %.
    """
    clean, robust = settings.reference
    at = settings.clean_at or round_values(lines)
    head = ["method", "knob", f"area above ({100 * clean:g} %, {100 * robust:g} %)"]
    rows = [[*head, *(f"robust at {100 * value:g} % {plane.clean}" for value in at)]]
    whole = (1 - clean) * (1 - robust) or 1.0
    for line in lines:
        areas = [
            hypervolume(*line.seeds[:, seed].T, reference=settings.reference) / whole
            for seed in range(line.seeds.shape[1])
        ]
        area = over_seeds([Number("", value, value, value) for value in areas])
        text = cell(area) if len(areas) > 1 else f"{100 * area.value:.1f}"
        values = robust_at(line.line.clean[:, 0], line.line.robust[:, 0], at)
        shown = ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in values]
        rows.append([line.line.name, line.line.knob or "-", text, *shown])
    return rows


def round_values(lines: Sequence[Measured]) -> tuple[float, ...]:
    """Round clean accuracies between the ends of the fronts of all lines."""
    several = []
    for line in (line.line for line in lines if len(line.line.values) > 1):
        several.append(line.clean[front(line.clean[:, 0], line.robust[:, 0]), 0])
    if not several:
        return ()
    found = np.concatenate(several)
    low, high = float(found.min()), float(found.max())
    for step in ROUND:
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < MOST:
            return tuple(round(number * step, 6) for number in range(first, last + 1))
    return ()


def compared(
    lines: Sequence[Measured], settings: Settings
) -> list[tuple[str, str, FrontComparison]]:
    """Pairs of lines compared by a paired bootstrap over images and seeds.

    Args:
      lines: the lines of the trade-off; those with one point, or without masks in their rows, are
        left out.
      settings: reference point and pairs.

    Returns:
      The two names of each pair and its comparison.
    """
    known = {m.line.name: m for m in lines if len(m.line.values) > 1 and m.right is not None}
    pairs = [pair for pair in settings.compared if set(pair) <= known.keys()]
    if not settings.compared and known:

        def area(name: str) -> float:
            found = known[name].line
            points = found.clean[:, 0], found.robust[:, 0]
            return hypervolume(*points, reference=settings.reference)

        best = max(known, key=area)
        pairs = [(best, other) for other in known if other != best]
    found = []
    for first, second in pairs:
        one, two = known[first].right, known[second].right
        assert one is not None
        assert two is not None
        if one[0].shape[1:] == two[0].shape[1:] and known[first].of == known[second].of:
            comparison = compare_fronts(one, two, reference=settings.reference)
            found.append((first, second, comparison))
    return found


def fronts_text(results: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """The table of the fronts and a sentence for each pair, from what `results.json` holds.

    Args:
      results: the results of a trade-off.

    Returns:
      Cells by row (empty if no member has a sweep), and the sentences.
    """
    plane = plane_in(results)
    swept = any(member.get("sweep") for member in results["members"].values())
    if plane is None or not swept:
        return [], []
    lines, settings = measured_lines(results["members"], plane), settings_in(results)
    if not lines:
        return [], []
    sentences = [c.sentence(first, second) for first, second, c in compared(lines, settings)]
    return fronts_table(lines, settings, plane), sentences


def compared_fronts(
    results: Mapping[str, Any], pairs: Sequence[tuple[str, str]]
) -> list[tuple[str, str, FrontComparison]]:
    """Members with sweeps compared by their fronts, from what `results.json` holds.

    Args:
      results: the results of a trade-off.
      pairs: names of two members each.

    Returns:
      The names of each pair and its comparison, in the first plane of the file.

    Raises:
      ValueError: if a pair cannot be compared: no such sweep, or rows without masks.
    """
    plane = plane_in(results)
    lines = [] if plane is None else measured_lines(results["members"], plane)
    settings = settings_in(results)._replace(compared=tuple(pairs))
    found = compared(lines, settings)
    if len(found) < len(pairs):
        raise ValueError(
            f"pairs must name members with sweeps whose rows say which images were right, got "
            f"{list(pairs)}"
        )
    return found
