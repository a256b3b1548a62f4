"""PGD adversarial training (Madry et al.)."""

from dataclasses import dataclass, field
from typing import Literal

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import pgd
from jaxrobust.attacks._attacked import LogitsFn
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._objective import Batch, Pass, Views, correct, default_step_size
from jaxrobust.threats import Threat


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PGDAT:
    r"""Cross-entropy on PGD's images: minimise over parameters the maximum over the threat.

    .. math:: \min_\theta \mathbb{E} \max_{x' \in B(x)} \mathrm{CE}(f_\theta(x'), y)

    The attack starts at a random point of the threat, cut to the box, and returns its last
    iterate.

    Args:
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" (the papers' default) or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.pgd_at(steps=7).passes
      (Pass(name='adv', view='adv'),)

    References:
      Madry et al., 2018 (arXiv:1706.06083), Eq. 2.1.
    """

    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Literal["running", "batch"] = field(
        default="running", metadata={"static": True}
    )

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the cross-entropy."""
        attacked = pgd(
            logits_fn,
            key,
            batch.images,
            batch.labels,
            threat=threat,
            loss=cross_entropy,
            steps=self.steps,
            step_size=default_step_size(threat, self.steps, self.step_size),
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images."""
        loss = cross_entropy(logits["adv"], batch.labels)
        return loss, {"robust_accuracy": correct(logits["adv"], batch.labels)}
