"""AutoAttack in several norms, and in their union."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxrobust import spec, threats
from jaxrobust.evaluation import Number, Row, Work, accuracy
from jaxrobust.evaluators._autoattack import AutoAttack
from jaxrobust.evaluators._images import counts_by_class
from jaxrobust.inputs import InputError
from jaxrobust.typing import NORMS, LogitsFn


@dataclass(frozen=True, kw_only=True)
class Union:
    """AutoAttack in each of several norms, and the accuracy on points that withstand all of them.

    Every norm attacks all points that are classified correctly, so each has a number of its own,
    the same as that of the evaluator `autoattack`, whose finished work is reused.

    Args:
      linf: radius in image units (8/255, not 8); default: the norm is left out.
      l2: radius in image units, l_2 norm of the whole change.
      l1: radius in image units, l_1 norm of the whole change.
      version: as in `evaluation.autoattack`.
      attacks: for version "custom".
      images: number of test images, the first ones; default all.
      seed: of all noise.

    Raises:
      ValueError: if there are fewer than two radii, or an argument is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.union(linf=8 / 255, l2=0.5, l1=12).norms
      ('linf', 'l2', 'l1')

    References:
      Tramer and Boneh, 2019 (arXiv:1904.13000). Croce and Hein, Adversarial Robustness against
      Multiple and Single l_p-Threat Models via Quick Fine-Tuning, 2022 (arXiv:2105.12508).
    """

    linf: spec.Number | None = None
    l2: spec.Number | None = None
    l1: spec.Number | None = None
    version: str = "standard"
    attacks: tuple[str, ...] | None = None
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.norms) < 2:
            raise InputError(
                f"union needs the radii of at least two norms of {', '.join(NORMS)}, got "
                f"{', '.join(self.norms) or 'none'}"
            )
        self._parts()

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that have a radius."""
        return tuple(norm for norm in ("linf", "l2", "l1") if getattr(self, norm) is not None)

    def _parts(self) -> list[AutoAttack]:
        shared: dict[str, Any] = {"version": self.version, "attacks": self.attacks}
        shared |= {"images": self.images, "seed": self.seed}
        return [AutoAttack(norm=n, eps=getattr(self, n), **shared) for n in self.norms]  # type: ignore[arg-type]

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images in every norm."""
        parts = self._parts()
        reports = [part.report(logits_fn, dataset, work) for part in parts]
        for report in reports:
            work.say(report.text())
        left = [list(report.masks.values())[-1] for report in reports]
        together = np.logical_and.reduce(left)
        work.say(f"withstand all of {', '.join(self.norms)}: {accuracy(together)}")
        columns = [part.column for part in parts]
        words = " and ".join(c.removeprefix("AutoAttack ") for c in columns)
        clean, labels = reports[0].masks["clean"], reports[0].labels
        threat = threats.union(**{norm: getattr(self, norm) for norm in self.norms})
        return Row(
            f"AutoAttack, union of {', '.join(self.norms)}",
            (
                Number("clean", *reports[0].clean_accuracy),
                *(Number(c, *r.robust_accuracy) for c, r in zip(columns, reports, strict=True)),
                Number(f"union of AutoAttack {words}", *accuracy(together)),
            ),
            {
                "threat": threats.described(threat),
                "protocols": [report.protocol for report in reports],
                "checks": [c._asdict() for r in reports for c in r.checks if not c.passed],
                "classes": counts_by_class(labels, dataset.num_classes, clean, together),
            },
            {"attacks": {n: r.cost for n, r in zip(self.norms, reports, strict=True)}},
        )
