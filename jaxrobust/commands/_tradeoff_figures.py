"""The figures of a trade-off's report, each with its caption and its rows."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.commands._fronts import Measured, Plane, measured_lines
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._members import Members, numbers_of_member, numbers_on, rows_of
from jaxrobust.evaluation import (
    Curve,
    Evaluator,
    Number,
    Point,
    Row,
    bars,
    draw_bars,
    draw_curves,
    draw_fronts,
    draw_tradeoff,
    over_seeds,
    settings_of,
    summary,
)
from jaxrobust.experiment import evaluator_name

PANELS = {
    "validation_accuracy": "accuracy, held-out\ntraining images (%)",
    "validation_robust_accuracy": "accuracy under margin PGD-{steps},\nheld-out images (%)",
}


class Drawn(NamedTuple):
    """A figure of the report.

    Attributes:
      path: the path of the PNG.
      caption: a description of the figure.
      kind: the kind of rows that it is drawn from, or "training".
    """

    path: pathlib.Path
    caption: str
    kind: str


def draw_figures(
    keeper: Keeper,
    members: Members,
    *,
    name: str,
    evaluators: Sequence[Evaluator],
    planes: Sequence[tuple[str, str]] = (),
) -> list[Drawn]:
    """All figures for which there are rows; a figure that cannot be drawn is a warning.

    Args:
      keeper: the keeper of the folder for the PNGs.
      members: as in `results.json`.
      name: the name of the trade-off.
      evaluators: the evaluators of the rows; those with a method `draw` draw their own figures.
      planes: pairs of columns, each drawn against the other; default: chosen from the rows.

    Returns:
      The drawn figures, in the order of the report.
    """
    shown = {k: member for k, member in members.items() if numbers_of_member(member)}
    if not shown:
        return []
    failed = [k for k, member in members.items() if "failure" in member]
    title = name + (f" (failed: {', '.join(failed)})" if failed else "")
    rows = {k: rows_of(member) for k, member in shown.items()}
    return [
        *_planes(keeper, shown, title, planes),
        *(drawn for evaluator in evaluators for drawn in _own(keeper, evaluator, rows, title)),
        *_training(keeper, shown, title),
    ]


def _planes(
    keeper: Keeper,
    members: Members,
    title: str,
    planes: Sequence[tuple[str, str]],
) -> list[Drawn]:
    """One column against another: a point per member, or lines if there are sweeps."""
    rows = {k: rows_of(member) for k, member in members.items()}
    swept = any(member.get("sweep") for member in members.values())
    first = max((run for runs in rows.values() for run in runs), key=len)  # others may lack rows
    seeds = bars(max(map(len, rows.values())))
    drawn: list[Drawn] = []
    named = {f"tradeoff_{i}.png" if i else "tradeoff.png": p for i, p in enumerate(planes)}
    for file, (horizontal, vertical) in (named or _usual_planes(first)).items():
        source = next((row for row in first if row.number(vertical)), first[0])
        words = {c: _words(c, first) for c in (horizontal, vertical)}
        words[horizontal] += _same_images(rows, (horizontal, vertical))
        if swept:
            plane = Plane(horizontal, vertical)
            lines = measured_lines(members, plane)
            if not lines:
                continue  # nobody has measured it, or not yet
            draw, caption = _fronts(lines, plane, words, title)
            drawn += _drawn(keeper, file, draw, caption[0].upper() + caption[1:], source.kind)
            continue
        found = {n: numbers_on(runs, (horizontal, vertical)) for n, runs in rows.items()}
        points = [
            Point(n, *(_ends(over_seeds(list(each))) for each in zip(*numbers, strict=True)))
            for n, numbers in found.items()
            if numbers is not None
        ]
        draw = partial(
            draw_tradeoff,
            points=points,
            title=f"{title}: accuracy against robustness (bars: {seeds})",
            clean_label=f"{words[horizontal]} (%)",
            robust_label=f"{words[vertical]} (%)",
        )
        caption = f"{words[horizontal]} against {words[vertical]}. Bars: {seeds}; "
        caption += "dashed: the Pareto front."
        drawn += _drawn(keeper, file, draw, caption[0].upper() + caption[1:], source.kind)
    return drawn


def draw_planes(
    keeper: Keeper, members: Members, *, name: str, planes: Sequence[tuple[str, str]] = ()
) -> list[Drawn]:
    """Only the figures of two columns, while other members are unfinished.

    Args:
      keeper: the keeper of the folder for the PNGs.
      members: the finished ones, as in `results.json`.
      name: the name of the trade-off.
      planes: as `draw_figures` takes them.

    Returns:
      The drawn figures.
    """
    shown = {k: member for k, member in members.items() if numbers_of_member(member)}
    return _planes(keeper, shown, name, planes) if shown else []


def _fronts(
    lines: Sequence[Measured], plane: Plane, words: Mapping[str, str], title: str
) -> tuple[Callable[[pathlib.Path], Any], str]:
    """How a plane with lines is drawn, and its caption."""
    seeds = max(line.seeds.shape[1] for line in lines)
    draw = partial(
        draw_fronts,
        lines=[line.line for line in lines],
        title=title.replace("_", " "),
        clean_label=f"{words[plane.clean]} (%)",
        robust_label=f"robust {words[plane.robust]} (%)",
        bands=seeds > 1,
    )
    caption = f"{words[plane.clean]} against {words[plane.robust]}: a line per method, a point for "
    caption += "each value of its knob. Filled points, with bold values, are on the overall front, "
    caption += "under which the plane is shaded. "
    if seeds > 1:
        return draw, caption + f"Bands: {bars(seeds)}."
    caption += "One seed; the cross shows the mean width of the 95 % intervals over test images."
    return draw, caption


def _usual_planes(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Clean accuracy against AutoAttack's, else the worst of PGD; then the spatial grid's.

    Returns:
      Pairs of columns by file.
    """
    by_kind: dict[str, list[Row]] = {}
    for row in rows:
        by_kind.setdefault(row.kind, []).append(row)
    robust = by_kind.get("autoattack") or by_kind.get("pgd") or []
    planes: dict[str, tuple[str, str]] = {}
    for row in robust:
        file = f"tradeoff_{row.settings.get('norm', len(planes))}.png" if planes else "tradeoff.png"
        planes[file] = ("clean", row.numbers[-1].column)
    for row in by_kind.get("spatial_grid", []) if planes else []:
        planes["spatial.png"] = (row.numbers[1].column, planes["tradeoff.png"][1])
    return planes


def _words(column: str, rows: Sequence[Row]) -> str:
    """A column as the label of an axis, with the threat if the column does not name it."""
    if column == "clean":
        return "clean accuracy"
    row = next((row for row in rows if row.number(column)), None)
    threat = f", {row.detail['threat']}" if row is not None and "threat" in row.detail else ""
    return f"accuracy, {column}{threat}"


def _same_images(rows: Mapping[str, list[list[Row]]], columns: tuple[str, str]) -> str:
    """For an axis: how many images its values are of, where the table's are of more."""
    for runs in rows.values():
        numbers, table = numbers_on(runs, columns), summary(runs).get(columns[0])
        if numbers is not None and table is not None and numbers[0][0].total != table.total:
            return f", the same {numbers[0][0].total} images"
    return ""


def _ends(number: Number) -> tuple[float, float, float]:
    return number.value, number.low, number.high


def _own(
    keeper: Keeper, evaluator: Evaluator, rows: Mapping[str, list[list[Row]]], title: str
) -> list[Drawn]:
    """The figures that an evaluator draws of its rows."""
    draw = getattr(evaluator, "draw", None)
    if draw is None:
        return []
    kind, settings = evaluator_name(evaluator), settings_of(evaluator)
    found = {
        name: [row for run in runs for row in run if (row.kind, row.settings) == (kind, settings)]
        for name, runs in rows.items()
    }
    shown = {name: seeds for name, seeds in found.items() if seeds}
    if not shown:
        return []
    captions = [next(iter(shown.values()))[0].title]

    def drawn(folder: pathlib.Path) -> list[pathlib.Path]:
        if hasattr(evaluator, "caption"):
            captions.append(evaluator.caption(shown))
        return draw(folder, shown, title)

    return [Drawn(path, captions[-1], kind) for path in keeper.draw_all(drawn, what=kind)]


def _drawn(
    keeper: Keeper, file: str, draw: Callable[[pathlib.Path], Any], caption: str, kind: str
) -> list[Drawn]:
    """The figure, if it could be drawn."""
    path = keeper.folder / file
    done = keeper.draw(path, lambda partial_path, _: draw(partial_path))
    return [Drawn(path, caption, kind)] if done else []


def _training(keeper: Keeper, shown: Members, title: str) -> list[Drawn]:
    """Accuracies over the epochs, and the cost of each method."""
    drawn: list[Drawn] = []
    runs = [run for member in shown.values() for run in member["runs"]]
    found_steps = sorted({run["experiment"]["validation"]["steps"] for run in runs})
    steps = " or ".join(map(str, found_steps))
    labels = {key: label.format(steps=steps) for key, label in PANELS.items()}
    panels: dict[str, dict[str, Curve]] = {label: {} for label in labels.values()}
    costs: dict[str, dict[str, float]] = {"first epoch, with compilation": {}, "other epochs": {}}
    for name, member in shown.items():
        found = member["runs"][0]["training"]
        for key, label in labels.items():
            if found["epoch"]:
                panels[label][name] = Curve(found["epoch"], found[key])
        each = [run["training"] for run in member["runs"]]
        first, total = (np.mean([x[k] for x in each]) for k in ("first_epoch_seconds", "seconds"))
        for part, seconds in zip(costs, (first, total - first), strict=True):
            costs[part][name] = float(seconds)
    if any(panels.values()):
        heading = f"{title}: during training (first seed)"
        draw = partial(draw_curves, panels=panels, title=heading, axis_label="epoch")
        caption = "Accuracies on held-out training images during training, first seed."
        drawn += _drawn(keeper, "curves.png", draw, caption, "training")
    heading = f"{title}: cost of training (mean over seeds)"
    draw = partial(draw_bars, parts=costs, title=heading, label="seconds")
    caption = (
        "Seconds of training, compilation and validation included (mean over seeds; for runs "
        "trained as one program, each run's share). For a method built from others, add their cost."
    )
    return drawn + _drawn(keeper, "cost.png", draw, caption, "training")
