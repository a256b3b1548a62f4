"""The figures of several seeds in one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


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
      runs: rows of `evaluate_run`, with `autoattack_accuracy` by norm and radius.

    Returns:
      "clean", each PGD attack, "worst PGD", the spatial evaluations and each AutoAttack.
    """
    if not runs:
        return {}
    figures = {"clean": _figure([run["clean_accuracy"] for run in runs])}
    steps = runs[0]["evaluation"]["steps"]
    for attack in runs[0]["robust_accuracy"]:
        name = f"{attack} ({steps})"
        figures[name] = _figure([run["robust_accuracy"][attack] for run in runs])
    figures["worst PGD"] = _figure([run["worst_case_accuracy"] for run in runs])
    for name in runs[0].get("spatial_accuracy", {}):
        figures[name] = _figure([run["spatial_accuracy"][name] for run in runs])
    for norm in runs[0].get("autoattack_accuracy", {}):
        name = f"AutoAttack {norm}"
        figures[name] = _figure([run["autoattack_accuracy"][norm] for run in runs])
    return figures


def worst_of(figures: dict[str, Figure]) -> Figure:
    """The accuracy under the first AutoAttack, or under PGD where there is none."""
    attacked = [f for name, f in figures.items() if name.startswith("AutoAttack")]
    return (attacked or [figures["worst PGD"]])[0]


def _figure(accuracies: Sequence[dict[str, float]]) -> Figure:
    if len(accuracies) == 1:
        (one,) = accuracies
        return Figure(one["value"], one["low"], one["high"], 1)
    values = [accuracy["value"] for accuracy in accuracies]
    return Figure(float(np.mean(values)), min(values), max(values), len(values))
