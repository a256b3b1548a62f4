"""MART."""

from dataclasses import dataclass, field

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import cross_entropy, mart
from jaxrobust.objectives._attack import Start, inner_pgd
from jaxrobust.objectives._objective import (
    Batch,
    Pass,
    Statistics,
    Views,
    correct,
    hard_batch,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Mart:
    """MART: adversarial training that weighs examples by how wrong they are without an attack.

    Cost: `2 * steps + 6` forward units per image.

    Args:
      beta: weight of the divergence; 5 or 6. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".
      start: "gaussian" as published, or "uniform".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.mart(beta=6.0).passes]
      ['clean', 'adv']

    References:
      Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples,
      2020 (ICLR), Eq. 11 and Algorithm 1.
    """

    beta: ArrayLike = 6.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    start: Start = field(default="gaussian", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the cross-entropy, from Gaussian noise."""
        batch = hard_batch("mart", batch)
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=cross_entropy,
            steps=self.steps,
            step_size=self.step_size,
            start=self.start,
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.mart`."""
        loss = mart(logits["clean"], logits["adv"], batch.labels, beta=self.beta)
        metrics = {
            "accuracy": correct(logits["clean"], batch.labels),
            "robust_accuracy": correct(logits["adv"], batch.labels),
        }
        return loss, metrics
