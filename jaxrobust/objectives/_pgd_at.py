"""PGD adversarial training (Madry et al.) and its friendly form."""

from dataclasses import dataclass, field

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._attack import inner_pgd
from jaxrobust.objectives._objective import AttackStatistics, Batch, Pass, Views, correct
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PGDAT:
    r"""Cross-entropy on PGD's images: minimise over parameters the maximum over the threat.

    .. math:: \min_\theta \mathbb{E} \max_{x' \in B(x)} \mathrm{CE}(f_\theta(x'), y)

    The attack starts at a random point of the threat, cut to the box, and returns its last
    iterate.

    Cost: `2 * steps + 3` forward units per image.

    Args:
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" (the papers' default), "batch", or
        "update" (the attack moves the running statistics).
      tau: stop an example this many steps after it is first misclassified; default never. May be
        traced.
      label_smoothing: of the loss alone, not in the attack, as in `losses.cross_entropy`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.pgd_at(steps=7).passes
      (Pass(name='adv', view='adv'),)

    References:
      Madry et al., 2018 (arXiv:1706.06083), Eq. 2.1.
    """

    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: AttackStatistics = field(default="running", metadata={"static": True})
    tau: ArrayLike | None = None
    label_smoothing: float = field(default=0.0, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=("running", "batch", "update"))

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the cross-entropy."""
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
        return Views({"adv": attacked.images}, {}, batch_stats=attacked.state)

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images."""
        smoothing = self.label_smoothing
        loss = cross_entropy(logits["adv"], batch.labels, label_smoothing=smoothing)
        return loss, {"robust_accuracy": correct(logits["adv"], batch.labels)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FAT(PGDAT):
    """Friendly adversarial training: PGD that stops soon after it has succeeded.

    `pgd_at` with early-stopped PGD: an example is left alone `tau` steps after it is first
    misclassified. The authors raise `tau` during training (0, 3, 6 after epochs 0, 40, 70): a
    schedule of `objective.tau` does that without recompilation.

    Cost: `2 * steps + 3` forward units per image; attacks that have ended early count.

    Args:
      steps: attack steps, at most.
      step_size: as in `pgd_at`.
      attack_statistics: as in `pgd_at`.
      tau: further steps after the first misclassification. May be traced.
      label_smoothing: as in `pgd_at`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.fat(tau=3).steps
      10

    References:
      Zhang et al., Attacks Which Do Not Kill Training Make Adversarial Learning Stronger, 2020
      (arXiv:2002.11242), Algorithm 1.
    """

    tau: ArrayLike | None = 0
