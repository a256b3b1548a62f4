"""TRADES for two classes with the hinge loss."""

from dataclasses import dataclass, field

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_labels
from jaxrobust.losses import binary_boundary, binary_trades
from jaxrobust.objectives._attack import Start, clean_output, inner_pgd
from jaxrobust.objectives._objective import (
    Batch,
    Pass,
    Statistics,
    Views,
    correct,
    hard_batch,
)
from jaxrobust.objectives._ranges import DIVISOR, check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class BinaryTrades:
    r"""Binary TRADES: the hinge loss, and the hinge between clean and adversarial scores.

    .. math:: \min_\theta \mathbb{E}\, \max(0, 1 - f(x) y)
              + \max_{x' \in B(x)} \max(0, 1 - f(x') f(x) / \lambda)

    For networks of two classes: the score is `f = z_1 - z_0`, class 1 is `y = +1`.

    Cost: `2 * steps + 7` forward units per image.

    Args:
      lam: lambda of the paper; 5 in the authors' code. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" or "batch".
      start: "gaussian" as published, or "uniform".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.binary_trades(lam=5.0).passes]
      ['clean', 'adv']

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Eq. 3 and the MNIST experiment of its Section 4.
    """

    lam: ArrayLike = field(default=5.0, metadata=DIVISOR)
    steps: int = field(default=20, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    start: Start = field(default="gaussian", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the boundary term."""
        batch = hard_batch("binary_trades", batch)
        clean = score_of(clean_output(logits_fn, batch.images))
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=lambda logits, labels: binary_boundary(clean, score_of(logits), lam=self.lam),
            steps=self.steps,
            step_size=self.step_size,
            start=self.start,
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.binary_trades`."""
        clean, adv = score_of(logits["clean"]), score_of(logits["adv"])
        signs = 2 * as_labels(batch.labels, batch=len(clean), classes=2) - 1
        loss = binary_trades(clean, adv, signs, lam=self.lam)
        metrics = {
            "accuracy": correct(logits["clean"], batch.labels),
            "robust_accuracy": correct(logits["adv"], batch.labels),
            "boundary_loss": binary_boundary(clean, adv, lam=self.lam),
        }
        return loss, metrics


def score_of(logits: Array) -> Array:
    """`z_1 - z_0` `[b, 1]` of logits `[b, 2]`."""
    if logits.shape[-1] != 2:
        raise InputError(
            f"binary_trades needs a network of 2 classes, got logits of shape {logits.shape}"
        )
    return logits[..., 1:] - logits[..., :1]
