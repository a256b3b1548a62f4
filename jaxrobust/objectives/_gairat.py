"""GAIRAT and GAIR-FAT."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import cross_entropy, gairat_log_weights
from jaxrobust.objectives._attack import inner_pgd
from jaxrobust.objectives._objective import Batch, Pass, Statistics, Views, correct
from jaxrobust.objectives._ranges import SHIFT, check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Gairat:
    """GAIRAT: adversarial training that weighs examples by the attack steps that they survive.

    The weights (`losses.gairat_weights`) are normalised over the batch of all devices. While
    `lam` is infinite this is plain PGD training: the published burn-in is a schedule of
    `objective.lam` that is infinite until epoch 60 and -1 from then on. The two other schedules of
    the published code do not do what they say: "piecewise" never leaves its first branch, and
    "linear" is NaN for its default; `schedules.stages` and `schedules.linear` write the intended
    ones.

    Without extra data GAIRAT defends against PGD on cross-entropy and little else: report
    AutoAttack, or at least a margin attack, beside it.

    Cost: `2 * steps + 3` forward units per image.

    Args:
      lam: shift of the weights. May be traced; infinite for equal weights.
      kind: "tanh", "sigmoid" or "discrete", as in `losses.gairat_weights`.
      steps: attack steps `K`.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".
      tau: stop an example this many steps after it is first misclassified; default never. May be
        traced.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.gairat(lam=-1.0).passes
      (Pass(name='adv', view='adv'),)

    References:
      Zhang et al., Geometry-aware Instance-reweighted Adversarial Training, 2021 (ICLR,
      arXiv:2010.01736), Algorithm 2.
    """

    lam: ArrayLike = field(default=-1.0, metadata=SHIFT)
    kind: Literal["tanh", "sigmoid", "discrete"] = field(default="tanh", metadata={"static": True})
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    tau: ArrayLike | None = None

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the cross-entropy, counting the iterates that are still correct."""
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=cross_entropy,
            steps=self.steps,
            step_size=self.step_size,
            start="uniform",
            stop_after=self.tau,
        )
        assert attacked.kappa is not None
        weights = gairat_log_weights(
            attacked.kappa, num_steps=self.steps, lam=self.lam, kind=self.kind
        )
        equal = jnp.isposinf(jnp.asarray(self.lam, weights.dtype))  # also for "discrete"
        return Views(
            {"adv": attacked.images},
            {"kappa": attacked.kappa},
            log_weights=jnp.where(equal, 0, weights),
        )

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images, before the weights."""
        loss = cross_entropy(logits["adv"], batch.labels)
        metrics = {
            "robust_accuracy": correct(logits["adv"], batch.labels),
            "kappa": extras["kappa"].astype(loss.dtype),
        }
        return loss, metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GairFat(Gairat):
    """GAIR-FAT: GAIRAT on friendly adversarial images.

    The attack stops `tau` steps after an example is first misclassified; its kappa counts the
    correct iterates until then. This is the intended algorithm: the published code compares the
    remaining examples with the labels of others once the first has stopped, and weighs losses of
    reordered images with labels in the old order.

    Cost: `2 * steps + 3` forward units per image; attacks that have ended early count.

    Args:
      lam: as in `gairat`; the authors use 0 here.
      kind: as in `gairat`.
      steps: attack steps, at most.
      step_size: as in `gairat`.
      attack_statistics: as in `gairat`.
      tau: further steps after the first misclassification (0, 3, 6 from epochs 0, 40, 70 in the
        paper's recipe). May be traced.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.gair_fat(lam=0.0, tau=3).kind
      'tanh'

    References:
      Zhang et al., 2021 (arXiv:2010.01736), GAIR-FAT.
    """

    lam: ArrayLike = field(default=0.0, metadata=SHIFT)
    tau: ArrayLike | None = 0
