"""Certified training on bounds alone: IBP and CROWN-IBP."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.bounds import verified
from jaxrobust.inputs import as_number
from jaxrobust.losses import certified, cross_entropy
from jaxrobust.objectives._box_attack import box_of
from jaxrobust.objectives._objective import (
    Batch,
    Bound,
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
class IBP:
    r"""IBP: the cross-entropy of the worst case over the whole ball, by interval bounds.

    .. math:: (1 - \kappa)\, \mathrm{CE}(z(x), y) + \kappa \log \sum_j e^{-m_j}

    The radius grows from 0 during training: `schedules={"threat.eps": use("smooth", ...)}`.
    Networks are bounded in evaluation mode: BatchNorm uses the running statistics, as constants.
    (The authors' code normalises with the clean batch's, and differentiates them.) Without
    BatchNorm a step is the authors'.

    Cost: `9 + 6 * (classes - 1) * head` forward units per image, all but 3 of them for the bound;
    `head` is the last layer's share of a forward pass: it is merged with each pair of classes.

    Args:
      kappa: weight of the certified loss, in [0, 1]. May be traced.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.ibp().bound.method
      'ibp'

    References:
      Gowal et al., On the Effectiveness of Interval Bound Propagation for Training Verifiably
      Robust Models, 2018 (arXiv:1810.12715).
    """

    kappa: ArrayLike = 1.0
    bound: ClassVar[Bound] = Bound(method="ibp")

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def attack_statistics(self) -> Statistics:
        """There is no attack."""
        return "running"

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """The ends of the ball; nothing is attacked."""
        batch = hard_batch("certified training", batch)
        return Views(box_of(threat, batch.images)._asdict(), {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The certified loss, and clean cross-entropy with the rest of the weight."""
        margins = logits["margins"]
        return mixed(certified(margins), logits["clean"], batch, self.kappa), {
            "certified_accuracy": certified_share(margins)
        }


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CrownIBP(IBP):
    """CROWN-IBP: IBP's loss on margins by linear bounds, whose intermediate bounds are intervals.

    Cost: `3 * classes + 6` forward units per image: a row of margins goes back through the network
    for each wrong class.

    Args:
      kappa: as in `ibp`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.crown_ibp(kappa=0.5).bound.method
      'crown-ibp'

    References:
      Zhang et al., Towards Stable and Efficient Training of Verifiably Robust Neural Networks, 2020
      (arXiv:1906.06316).
    """

    bound: ClassVar[Bound] = Bound(method="crown-ibp")


def mixed(loss: Array, clean_logits: Array, batch: Batch, kappa: ArrayLike) -> Array:
    """`(1 - kappa)` of the clean cross-entropy and `kappa` of a loss."""
    as_number(kappa, name="kappa", lead=loss.shape)
    share = jnp.asarray(kappa, loss.dtype)
    return (1 - share) * cross_entropy(clean_logits, batch.labels).astype(loss.dtype) + share * loss


def certified_share(margins: Array) -> Array:
    """`[b]`: 1 where the margins prove the label."""
    return verified(margins).astype(jnp.float32)


def clean_and_robust(logits: dict[str, Array], batch: Batch) -> dict[str, Array]:
    """Metrics of objectives with an attack."""
    return {
        "robust_accuracy": correct(logits["adv"], batch.labels),
        "certified_accuracy": certified_share(logits["margins"]),
    }
