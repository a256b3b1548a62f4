"""Accuracies of each class, from another evaluator's row."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax import Array

from jaxrobust.evaluation import Number, Row, Work, accuracy, draw_classes
from jaxrobust.evaluators._pgd import Pgd
from jaxrobust.inputs import InputError
from jaxrobust.typing import LogitsFn

KINDS = ("clean", "robust")
NAMED = 20  # classes whose names are kept in rows


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """The accuracy of each class, clean and under an attack, and the worst class of both.

    It attacks nothing itself: it takes the counts of another evaluator's row, which is made if it
    is missing. Draws `classes.png`.

    Args:
      attack: an evaluator whose rows have counts by class, such as `pgd` or `autoattack`.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.per_class(attack=evaluators.autoattack(norm="l2", eps=0.5)).attack.eps
      0.5
    """

    attack: Any = field(default_factory=Pgd)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Takes the counts of the attack's row."""
        row = work.row(self.attack)
        counts = row.detail.get("classes")
        if counts is None:
            raise InputError(f"attack must count its results by class, got {row.kind!r}")
        names = getattr(dataset, "class_names", ())
        named = {"class_names": list(names)} if 0 < len(names) <= NAMED else {}
        numbers = (Number(f"worst class, {kind}", *_worst(counts, kind)) for kind in KINDS)
        detail = {"attack": row.title, "counts": counts, **named}
        return Row(f"accuracy of each class under {row.title}", tuple(numbers), detail)

    def draw(
        self, folder: pathlib.Path, rows: Mapping[str, Sequence[Row]], title: str
    ) -> list[pathlib.Path]:
        """Classes by methods, over all seeds; dark is low."""
        first = _first(rows).detail
        labels = {"clean": "clean", "robust": f"under {first['attack']}"}
        panels: dict[str, dict[str, list[float]]] = {label: {} for label in labels.values()}
        for name, seeds in rows.items():
            counts = [row.detail["counts"] for row in seeds]
            total = {k: np.sum([c[k] for c in counts], axis=0) for k in ("images", *KINDS)}
            for kind, label in labels.items():
                panels[label][name] = class_shares(total, kind)
        path = folder / "classes.png"
        heading = f"{title}: accuracy of each class (%)"
        draw_classes(path, panels, title=heading, class_names=first.get("class_names", ()))
        return [path]

    def caption(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """What the figure shows."""
        first = _first(rows).detail
        images = first["counts"]["images"]
        return (
            f"Accuracy of each class in per cent, clean and under {first['attack']}, on "
            f"{sum(images)} test images ({min(images)} to {max(images)} of a class: one image is "
            f"up to {100 / max(1, min(images)):.0f} points)."
        )


def _first(rows: Mapping[str, Sequence[Row]]) -> Row:
    return next(iter(rows.values()))[0]


def class_shares(counts: Mapping[str, Any], kind: str) -> list[float]:
    """The accuracy of each class; NaN for a class without images."""
    pairs = zip(counts[kind], counts["images"], strict=True)
    return [right / total if total else float("nan") for right, total in pairs]


def _worst(counts: Mapping[str, Any], kind: str) -> Any:
    """The lowest accuracy of a class, with that class's own interval."""
    worst = int(np.nanargmin(class_shares(counts, kind)))
    return accuracy(np.arange(counts["images"][worst]) < counts[kind][worst])
