"""The figures of a trade-off's report, each with what it shows and the rows behind it."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.commands._summary import Figure, class_shares, over_seeds
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
    "validation_robust_accuracy": "accuracy under margin PGD,\nheld-out training images (%)",
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
    folder: pathlib.Path, tradeoff: Tradeoff, members: Members, *, attack: str
) -> list[Drawn]:
    """All figures that the rows hold something for.

    Args:
      folder: where the PNGs go.
      tradeoff: what was asked for.
      members: as in `results.json`.
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
        *_planes(folder, shown, title, attack),
        *_eps_curves(folder, shown, title),
        *_certified(folder, shown, title),
        *_classes(folder, shown, title),
        *_training(folder, shown, title),
    ]


def bars(members: Members) -> str:
    """What the bars of a figure are."""
    count = max(len(member["runs"]) for member in members.values())
    return f"range of {count} seeds" if count > 1 else "95 % intervals"


def _planes(folder: pathlib.Path, shown: Members, title: Any, attack: str) -> list[Drawn]:
    """Clean against robust accuracy for every norm, and spatial against robust."""
    figures = {
        name: {column: Figure(**f) for column, f in member["figures"].items()}
        for name, member in shown.items()
    }
    columns = list(next(iter(figures.values())))
    robust = [c for c in columns if c.startswith("AutoAttack")] or ["worst PGD"]
    planes = []
    for number, column in enumerate(robust):
        norm = column.removeprefix("AutoAttack ").split()[0]
        label = f"accuracy under AutoAttack (%)\n{column.removeprefix('AutoAttack ')}"
        if column == "worst PGD":
            label = f"accuracy under {attack}"
        file = "tradeoff.png" if not number else f"tradeoff_{norm}.png"
        text = f"Clean accuracy against {label.replace(chr(10), ' ').replace(' (%)', '')}"
        kind = "evaluation" if column == "worst PGD" else "autoattack"
        planes.append((file, "clean", column, label, text, kind))
    for column in columns:
        if column.startswith("spatial grid"):
            _, _, robust_column, label, _, kind = planes[0]
            text = f"Accuracy under the worst point of a {column} against robust accuracy"
            planes.append(("spatial.png", column, robust_column, label, text, "evaluation"))
    drawn = []
    for file, horizontal, vertical, label, text, kind in planes:
        names = [n for n, f in figures.items() if {horizontal, vertical} <= f.keys()]
        points = [Point(n, figures[n][horizontal], figures[n][vertical]) for n in names]
        spatial = horizontal != "clean"
        draw_tradeoff(
            folder / file,
            points,
            title=title(
                f"{'spatial accuracy' if spatial else 'accuracy'} against robustness "
                f"(bars: {bars(shown)})"
            ),
            robust_label=f"{label}, image units",
            clean_label=f"accuracy (%), {horizontal}" if spatial else "clean accuracy (%)",
        )
        ends = f"Bars: {bars(shown)}; dashed: the Pareto front."
        drawn.append(Drawn(folder / file, f"{text}. {ends}", kind))
    return drawn


def _eps_curves(folder: pathlib.Path, shown: Members, title: Any) -> list[Drawn]:
    """Accuracy against eps, a figure per norm."""
    drawn = []
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
        draw_curves(
            folder / f"eps_{norm}.png",
            {f"accuracy under {attack} (%)": curves},
            title=title(f"accuracy against eps, {norm}"),
            axis_label=f"{norm} eps (image units)",
        )
        caption = (
            f"Accuracy against {norm} eps under {attack}, {images} test images; an image that a "
            f"smaller eps turned stays turned. Shaded: {bars(shown)}. AutoAttack finds more."
        )
        drawn.append(Drawn(folder / f"eps_{norm}.png", caption, "eps_curves"))
    return drawn


def _curve(points: Sequence[tuple[float, Figure]]) -> Curve:
    return Curve(
        [x for x, _ in points],
        [f.value for _, f in points],
        [f.low for _, f in points],
        [f.high for _, f in points],
    )


def _certified(folder: pathlib.Path, shown: Members, title: Any) -> list[Drawn]:
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
    draw_curves(
        folder / "certified.png",
        {"certified accuracy (%)": curves},
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
    return [Drawn(folder / "certified.png", caption, "certified")]


def _classes(folder: pathlib.Path, shown: Members, title: Any) -> list[Drawn]:
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
    draw_classes(folder / "classes.png", panels, title=title("accuracy of each class (%)"))
    images = first["per_class"]["images"]
    caption = (
        f"Accuracy of each class in per cent, clean and under {attack}, on {sum(images)} test "
        f"images ({min(images)} to {max(images)} of a class: one image is up to "
        f"{100 / max(1, min(images)):.0f} points)."
    )
    return [Drawn(folder / "classes.png", caption, "per_class")]


def _training(folder: pathlib.Path, shown: Members, title: Any) -> list[Drawn]:
    """Accuracies over the epochs, and what each method cost."""
    drawn = []
    panels: dict[str, dict[str, Curve]] = {label: {} for label in PANELS.values()}
    costs: dict[str, dict[str, float]] = {"first epoch, with compilation": {}, "other epochs": {}}
    for name, member in shown.items():
        found = member["runs"][0]["training"]
        for key, label in PANELS.items():
            if found["epoch"]:
                panels[label][name] = Curve(found["epoch"], found[key])
        each = [run["training"] for run in member["runs"]]
        first, total = (np.mean([x[k] for x in each]) for k in ("first_epoch_seconds", "seconds"))
        for part, seconds in zip(costs, (first, total - first), strict=True):
            costs[part][name] = float(seconds)
    if any(panels.values()):
        path = folder / "curves.png"
        heading = title("during training (first seed)")
        draw_curves(path, panels, title=heading, axis_label="epoch")
        caption = "Accuracies on held-out training images during training, first seed."
        drawn.append(Drawn(path, caption, "training"))
    path = folder / "cost.png"
    draw_bars(path, costs, title=title("cost of training (mean over seeds)"), label="seconds")
    caption = (
        "Seconds of training, compilation and validation included (mean over seeds; of runs "
        "trained as one program, each one's share). A method made of others costs theirs too."
    )
    drawn.append(Drawn(path, caption, "training"))
    return drawn
