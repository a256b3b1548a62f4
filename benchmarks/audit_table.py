"""The audit beside the standard AutoAttack, on networks that hide their gradients and on others."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.defences import Defence, defences, digits_images
from jaxrobust import attacks, evaluation, threats


class AuditRow(NamedTuple):
    """What an attack and then the audit leave of one network.

    Attributes:
      network: the defence's name.
      eps: radius of the l_inf ball.
      points: images.
      clean: images that are classified correctly.
      attack: what attacked before the audit: the standard AutoAttack, or PGD on a random network.
      before: points that it leaves.
      after: points that the audit leaves.
      verdict: "trusted", "too high" or "not to be trusted".
      fell: points that fell to each stage of the audit.
      seconds: of the audit, compilation included.
      attack_seconds: likewise of the attack before it.
    """

    network: str
    eps: float
    points: int
    clean: int
    attack: str
    before: int
    after: int
    verdict: str
    fell: dict[str, int]
    seconds: float
    attack_seconds: float


def audit_table(
    *, only: Sequence[str] = (), points: int | None = None, **settings: Any
) -> list[AuditRow]:
    """Attacks every network, and audits what is left.

    Args:
      only: names of some of the defences; default all.
      points: the first so many images of each; default as `defences` says.
      **settings: of `evaluation.audit`.

    Returns:
      A row per network.

    Raises:
      ValueError: if a name is unknown.
    """
    known = {defence.name: defence for defence in defences()}
    for name in only:
        if name not in known:
            raise ValueError(f"only must name defences ({', '.join(known)}), got {name!r}")
    return [_row(known[name], points, settings) for name in only or known]


def _row(defence: Defence, points: int | None, settings: dict[str, Any]) -> AuditRow:
    x, y = (values[: points or defence.points] for values in digits_images())
    started = time.perf_counter()
    if defence.attacks:
        name = "AutoAttack"
        found = evaluation.autoattack(defence.network, x, y, norm="linf", eps=defence.eps)
        left = found.masks["square"]
    else:
        name, left = "PGD-100, most of 9 passes", ~falls_to_pgd(defence, x, y, steps=100)
    between = time.perf_counter()
    report = evaluation.audit(defence.network, x, y, eps=defence.eps, robust=left, **settings)
    return AuditRow(
        network=defence.name,
        eps=defence.eps,
        points=len(y),
        clean=int(report.masks["clean"].sum()),
        attack=name,
        before=int(report.masks["before"].sum()),
        after=report.robust_accuracy.correct,
        verdict=report.verdict.partition(":")[0],
        fell={stage: int(count) for stage, count in report.fell.items() if count},
        seconds=time.perf_counter() - between,
        attack_seconds=between - started,
    )


def falls_to_pgd(defence: Defence, x: np.ndarray, y: np.ndarray, *, steps: int) -> np.ndarray:
    """Whether most of nine passes of a random network misclassify what PGD finds."""
    attack = attacks.PGD(threat=threats.linf(defence.eps), steps=steps)
    run = jax.jit(lambda key, x, y: attack(defence.network, key, x, y))
    found = run(jax.random.key(0), x, y).images
    passes = jax.jit(lambda x: defence.network(x))
    wrong = [np.asarray(passes(found)).argmax(-1) != y for _ in range(9)]
    return np.mean(wrong, 0) > 0.5
