"""The figures of a trade-off's report, each with what it shows and the rows behind it."""

import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._summary import WORST, Figure, class_shares, columns_of, over_seeds
from jaxrobust.evaluation import (
    Curve,
    Point,
    draw_bars,
    draw_classes,
    draw_curves,
    draw_tradeoff,
)
from jaxrobust.experiment import Tradeoff

Members = dict[str, dict[str, Any]]
PANELS = {
    "validation_accuracy": "accuracy, held-out\ntraining images (%)",
    "validation_robust_accuracy": "accuracy under margin PGD-{steps},\nheld-out images (%)",
}


class Drawn(NamedTuple):
    """A figure of the report.

    Attributes:
      path: of the PNG.
      caption: what it shows.
      kind: the part of the rows that it is drawn from, one of `KINDS`.
    """

    path: pathlib.Path
    caption: str
    kind: str


def draw_figures(
    keeper: Keeper, tradeoff: Tradeoff, members: Members, *, attack: str, names: Sequence[str] = ()
) -> list[Drawn]:
    """All figures that the rows hold something for; one that cannot be drawn is a warning.

    Args:
      keeper: of the folder where the PNGs go.
      tradeoff: what was asked for.
      members: as in `results.json`.
      names: of the classes, if they have any.
      attack: names the evaluation's own attack, for where AutoAttack was not run.

    Returns:
      What was drawn, in the order of the report.
    """
    shown = {name: member for name, member in members.items() if member["figures"]}
    if not shown:
        return []
    failed = [name for name, member in members.items() if "failure" in member]

    def title(text: str) -> str:
        return f"{tradeoff.name}: {text}" + (f"\nfailed: {', '.join(failed)}" if failed else "")

    return [
        *_planes(keeper, shown, title, attack),
        *_eps_curves(keeper, shown, title),
        *_certified(keeper, shown, title),
        *_classes(keeper, shown, title, names),
        *_training(keeper, shown, title),
    ]


def bars(members: Members) -> str:
    """What the bars of a figure are."""
    count = max(len(member["runs"]) for member in members.values())
    return f"range of {count} seeds" if count > 1 else "95 % intervals"


def _planes(keeper: Keeper, shown: Members, title: Any, attack: str) -> list[Drawn]:
    """Clean against robust accuracy for every norm, and spatial against robust."""
    figures = {
        name: {column: Figure(**f) for column, f in member["figures"].items()}
        for name, member in shown.items()
    }
    columns = columns_of(shown)
    robust = [c for c in columns if c.startswith("AutoAttack")]
    robust = robust or [c for c in columns if c.startswith(WORST)]
    planes = []
    for number, column in enumerate(robust):
        norm = column.removeprefix("AutoAttack ").split()[0]
        label = f"accuracy under AutoAttack (%)\n{column.removeprefix('AutoAttack ')}"
        if column.startswith(WORST):
            label = f"accuracy under {attack}"
        file = "tradeoff.png" if not number else f"tradeoff_{norm}.png"
        text = f"Clean accuracy against {label.replace(chr(10), ' ').replace(' (%)', '')}"
        kind = "evaluation" if column.startswith(WORST) else "autoattack"
        planes.append((file, "clean", column, label, text, kind))
    for column in columns:
        if column.startswith("spatial grid"):
            _, _, robust_column, label, _, kind = planes[0]
            text = f"Accuracy under the worst point of a {column} against robust accuracy"
            planes.append(("spatial.png", column, robust_column, label, text, "evaluation"))
    drawn: list[Drawn] = []
    for file, horizontal, vertical, label, text, kind in planes:
        names = [n for n, f in figures.items() if {horizontal, vertical} <= f.keys()]
        points = [Point(n, figures[n][horizontal], figures[n][vertical]) for n in names]
        spatial = horizontal != "clean"
        draw = partial(
            draw_tradeoff,
            points=points,
            title=title(
                f"{'spatial accuracy' if spatial else 'accuracy'} against robustness "
                f"(bars: {bars(shown)})"
            ),
            robust_label=f"{label}, image units",
            clean_label=f"accuracy (%), {horizontal}" if spatial else "clean accuracy (%)",
        )
        ends = f"Bars: {bars(shown)}; dashed: the Pareto front."
        drawn += _drawn(keeper, file, draw, f"{text}. {ends}", kind)
    return drawn


def _drawn(
    keeper: Keeper, file: str, draw: Callable[[pathlib.Path], Any], caption: str, kind: str
) -> list[Drawn]:
    """The figure, if it could be drawn."""
    path = keeper.folder / file
    done = keeper.draw(path, lambda partial_path, _: draw(partial_path))
    return [Drawn(path, caption, kind)] if done else []


def _eps_curves(keeper: Keeper, shown: Members, title: Any) -> list[Drawn]:
    """Accuracy against eps, a figure per norm."""
    drawn: list[Drawn] = []
    first = next(iter(shown.values()))["runs"][0]
    for norm in first.get("eps_curves", {}):
        curves = {}
        for name, member in shown.items():
            points = zip(
                *(run["eps_curves"][norm]["points"] for run in member["runs"]), strict=True
            )
            curves[name] = _curve([(p[0]["eps"], over_seeds(p)) for p in points])
        attack = first["eps_curves"][norm]["attack"]
        images = first["eps_curves"][norm]["points"][0]["total"]
        label = f"accuracy under {attack} (%)\nat this and every smaller eps, {images} images"
        draw = partial(
            draw_curves,
            panels={label: curves},
            title=title(f"accuracy against eps, {norm}"),
            axis_label=f"{norm} eps (image units)",
        )
        caption = (
            f"Accuracy against {norm} eps under {attack}, {images} test images; an image that fell "
            f"at a smaller eps counts as fallen, so a value may lie below the table's under the "
            f"same attack. Shaded: {bars(shown)}. AutoAttack finds more."
        )
        drawn += _drawn(keeper, f"eps_{norm}.png", draw, caption, "eps_curves")
    return drawn


def _curve(points: Sequence[tuple[float, Figure]]) -> Curve:
    return Curve(
        [x for x, _ in points],
        [f.value for _, f in points],
        [f.low for _, f in points],
        [f.high for _, f in points],
    )


def _certified(keeper: Keeper, shown: Members, title: Any) -> list[Drawn]:
    """Certified accuracy against the l_2 radius, of the smoothed members."""
    first = next(iter(shown.values()))["runs"][0]
    if "certified" not in first:
        return []
    radii = {
        name: np.concatenate([run["certified"]["radii"] for run in member["runs"]])
        for name, member in shown.items()
    }
    largest = max(float(found.max()) for found in radii.values())
    grid = np.linspace(0, 1.05 * largest or 1.0, 400).tolist()
    curves = {
        name: Curve(grid, [float((found > r).mean()) for r in grid])
        for name, found in radii.items()
    }
    settings, count = first["certified"]["settings"], len(first["certified"]["radii"])
    draw = partial(
        draw_curves,
        panels={"certified accuracy (%)": curves},
        title=title(
            f"certified by randomized smoothing\nsigma {settings['sigma']:g}, "
            f"{settings['samples']} draws, confidence {100 * settings['confidence']:g} % per image"
        ),
        axis_label="certified l_2 radius (image units)",
        steps=True,
    )
    caption = (
        f"Certified accuracy against the l_2 radius, {count} test images, of each member smoothed "
        f"by Gaussian noise of sigma {settings['sigma']:g}: {settings['selection']} draws choose "
        f"the class, {settings['samples']} others bound its probability (Clopper-Pearson, "
        f"confidence {100 * settings['confidence']:g} % for each image). It speaks of the "
        "smoothed classifier, not of the member itself."
    )
    return _drawn(keeper, "certified.png", draw, caption, "certified")


def _classes(keeper: Keeper, shown: Members, title: Any, class_names: Sequence[str]) -> list[Drawn]:
    """Accuracies of each class, over all seeds."""
    first = next(iter(shown.values()))["runs"][0]
    if "per_class" not in first:
        return []
    attack = first["per_class"]["attack"]
    labels = {"clean": "clean", "robust": f"under {attack}"}
    panels: dict[str, dict[str, list[float]]] = {label: {} for label in labels.values()}
    for name, member in shown.items():
        counts = [run["per_class"] for run in member["runs"]]
        total = {k: np.sum([c[k] for c in counts], axis=0) for k in ("images", *labels)}
        for kind, label in labels.items():
            panels[label][name] = class_shares(total, kind)
    heading = title("accuracy of each class (%)")
    draw = partial(draw_classes, panels=panels, title=heading, class_names=class_names)
    images = first["per_class"]["images"]
    caption = (
        f"Accuracy of each class in per cent, clean and under {attack}, on {sum(images)} test "
        f"images ({min(images)} to {max(images)} of a class: one image is up to "
        f"{100 / max(1, min(images)):.0f} points)."
    )
    return _drawn(keeper, "classes.png", draw, caption, "per_class")


def _training(keeper: Keeper, shown: Members, title: Any) -> list[Drawn]:
    """Accuracies over the epochs, and what each method cost."""
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
        heading = title("during training (first seed)")
        draw = partial(draw_curves, panels=panels, title=heading, axis_label="epoch")
        caption = "Accuracies on held-out training images during training, first seed."
        drawn += _drawn(keeper, "curves.png", draw, caption, "training")
    heading = title("cost of training (mean over seeds)")
    draw = partial(draw_bars, parts=costs, title=heading, label="seconds")
    caption = (
        "Seconds of training, compilation and validation included (mean over seeds; of runs "
        "trained as one program, each one's share). A method made of others costs theirs too."
    )
    return drawn + _drawn(keeper, "cost.png", draw, caption, "training")
