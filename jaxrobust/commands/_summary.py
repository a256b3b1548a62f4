"""The figures of several seeds in one, and the row that each comes from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrobust.commands._identity import pgd_text
from jaxrobust.evaluation import accuracy

WORST = "worst PGD"  # pointwise, over cross-entropy and margin
GRID = "spatial_grid"  # an attack of runs whose threat is rotations and shifts


class Figure(NamedTuple):
    """An accuracy over seeds.

    Attributes:
      value: mean over the seeds.
      low: the lowest seed; with one seed the lower end of its 95 % interval.
      high: the highest seed; with one seed the upper end of its 95 % interval.
      seeds: how many.
    """

    value: float
    low: float
    high: float
    seeds: int


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    """Figures by column, over the rows of all seeds of a member; empty without rows.

    Args:
      runs: rows of `evaluate_run`, with what `Judge.add` put into them.

    Returns:
      "clean", each PGD attack, "worst PGD", the spatial evaluations, each AutoAttack, the worst
      class's accuracies and the certified ones.
    """
    columns = [_accuracies(run) for run in runs]
    names = [name for name in (columns or [{}])[0] if all(name in c for c in columns)]
    return {name: over_seeds([found[name] for found in columns]) for name in names}


def _accuracies(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The columns of one seed."""
    found = {"clean": run["clean_accuracy"]}
    found |= {attack_text(name, run): value for name, value in run["robust_accuracy"].items()}
    found[WORST + " and grid" * (GRID in run["robust_accuracy"])] = run["worst_case_accuracy"]
    found |= run.get("spatial_accuracy", {})
    autoattack = run.get("autoattack_accuracy", {})
    found |= {f"AutoAttack {norm}": value for norm, value in autoattack.items()}
    if "per_class" in run:
        found |= {f"worst class, {k}": _worst(run["per_class"], k) for k in ("clean", "robust")}
    if "certified" in run:
        sigma = run["certified"]["settings"]["sigma"]
        for point in run["certified"]["points"]:
            found[f"certified l2 {point['radius']:g} (sigma {sigma:g})"] = point
    return found


def attack_text(name: str, run: dict[str, Any]) -> str:
    """An attack of an evaluation with the settings that its number depends on."""
    evaluation = run["evaluation"]
    if name == GRID:
        return f"{name} ({' x '.join(map(str, evaluation['spatial_grid']))})"
    return f"{name} ({pgd_text(evaluation)})"


def columns_of(members: dict[str, dict[str, Any]]) -> list[str]:
    """The columns of a table, those that only some members have too."""
    names = [column for member in members.values() for column in member["figures"]]
    return list(dict.fromkeys(names))


def cell(figure: dict[str, float] | None) -> str:
    """An accuracy in per cent, with half of its interval or range; empty if it was not measured."""
    if figure is None:
        return ""
    return f"{100 * figure['value']:.1f} ±{50 * (figure['high'] - figure['low']):.1f}"


def class_shares(counts: dict[str, Any], kind: str) -> list[float]:
    """The accuracy of each class; NaN for a class without images."""
    pairs = zip(counts[kind], counts["images"], strict=True)
    return [right / total if total else float("nan") for right, total in pairs]


def _worst(counts: dict[str, Any], kind: str) -> dict[str, float]:
    """The lowest accuracy of a class, with that class's own interval."""
    worst = int(np.nanargmin(class_shares(counts, kind)))
    mask = np.arange(counts["images"][worst]) < counts[kind][worst]
    return {"class": worst, **accuracy(mask)._asdict()}


def over_seeds(accuracies: Sequence[dict[str, float]]) -> Figure:
    """The accuracies of several seeds in one."""
    if len(accuracies) == 1:
        (one,) = accuracies
        return Figure(one["value"], one["low"], one["high"], 1)
    values = [accuracy["value"] for accuracy in accuracies]
    return Figure(float(np.mean(values)), min(values), max(values), len(values))


KINDS = {
    "evaluation": "clean, PGD and spatial accuracies",
    "autoattack": "AutoAttack",
    "per_class": "accuracies of each class",
    "eps_curves": "accuracy against eps",
    "certified": "certified radii",
    "training": "training",
}


def kind_of(column: str) -> str:
    """The part of a run's row that a column comes from, one of `KINDS`."""
    heads = {"AutoAttack": "autoattack", "worst class": "per_class", "certified": "certified"}
    return next((kind for head, kind in heads.items() if column.startswith(head)), "evaluation")


def parts(run: dict[str, Any]) -> dict[str, Any]:
    """A run's row, taken apart by `KINDS`."""
    apart = {kind: run[kind] for kind in KINDS if kind in run}
    taken = {*apart, "autoattack_accuracy"}
    return {"evaluation": {k: v for k, v in run.items() if k not in taken}, **apart}
