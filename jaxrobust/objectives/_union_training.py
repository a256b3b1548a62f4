"""Training on every norm of a union at once: the worst image, or the mean over all."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._norms import balls, picked, strongest
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
from jaxrobust.typing import NORMS, LogitsFn, Norm


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MaxNorms:
    """MAX: every image is attacked in every norm, and the network learns on the worst.

    The worst is the image of highest attack loss; of equal ones that of the first norm in the
    union. The attacks are E-AT's. The threat must be a union of norms.

    Cost: `norms * (2 * steps + 2) + 3` forward units per image.

    Args:
      steps: attack steps in each norm.
      attack_statistics: BatchNorm in the attacks: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.max_norms(steps=10).passes
      (Pass(name='adv', view='adv'),)

    References:
      Tramer and Boneh, Adversarial Training and Robustness for Multiple Perturbations, 2019
      (arXiv:1904.13000), Section 3.
    """

    steps: int = field(default=10, metadata={"static": True})
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def draw(self, key: Array, batch: Batch, threat: Threat) -> dict[str, Array]:
        """Nothing: the attacks start at the clean image."""
        return {}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: None = None,
    ) -> Views:
        """APGD in every norm; of each example the image of highest loss."""
        batch = hard_batch("max_norms", batch)
        members = balls(threat, "max_norms").values()
        found = [strongest(logits_fn, batch, ball, steps=self.steps) for ball in members]
        choice = jnp.argmax(jnp.stack([each.loss for each in found]), 0)  # NaN is the highest
        images = picked(choice, [each.images for each in found])
        return Views({"adv": images}, {"norm": choice.astype(jnp.int32)})

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """`attack`."""
        return self.attack(logits_fn, batch, threat, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the worst images."""
        loss = cross_entropy(logits["adv"], batch.labels)
        return loss, {"robust_accuracy": correct(logits["adv"], batch.labels)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AvgNorms:
    """AVG: the mean of the losses on the images of every norm, one pass each.

    The attacks are E-AT's. (The repository robust_union takes an optimizer step per norm instead.)
    The threat must be a union of the same norms.

    Cost: `norms * (2 * steps + 5)` forward units per image.

    Args:
      steps: attack steps in each norm.
      norms: in the order of the passes, which the running statistics follow.
      attack_statistics: BatchNorm in the attacks: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.avg_norms(norms=("linf", "l1")).passes]
      ['linf', 'l1']

    References:
      Tramer and Boneh, 2019 (arXiv:1904.13000), Section 3.
    """

    steps: int = field(default=10, metadata={"static": True})
    norms: tuple[Norm, ...] = field(default=("linf", "l2", "l1"), metadata={"static": True})
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)
        norms = tuple(self.norms) if isinstance(self.norms, tuple | list) else ()
        if not norms or len(set(norms)) < len(norms) or not set(norms) <= set(NORMS):
            raise InputError(
                f"norms must be different ones of {', '.join(NORMS)}, got {self.norms}"
            )
        object.__setattr__(self, "norms", norms)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return tuple(Pass(norm, norm) for norm in self.norms)

    def draw(self, key: Array, batch: Batch, threat: Threat) -> dict[str, Array]:
        """Nothing: the attacks start at the clean image."""
        return {}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: None = None,
    ) -> Views:
        """APGD in every norm."""
        batch = hard_batch("avg_norms", batch)
        members = balls(threat, "avg_norms", *self.norms)
        if len(members) > len(self.norms):
            raise InputError(
                f"norms must be all of the threat, {', '.join(members)}, got {self.norms}"
            )
        attacked: dict[str, Array] = {
            norm: strongest(logits_fn, batch, members[norm], steps=self.steps).images
            for norm in self.norms
        }
        return Views(attacked, {})

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """`attack`."""
        return self.attack(logits_fn, batch, threat, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The mean of the cross-entropies; an example is robust if all its images are right."""
        losses = jnp.stack([cross_entropy(logits[norm], batch.labels) for norm in self.norms])
        right = {norm: correct(logits[norm], batch.labels) for norm in self.norms}
        metrics = {f"robust_accuracy_{norm}": value for norm, value in right.items()}
        every = jnp.min(jnp.stack(list(right.values())), 0)
        return jnp.mean(losses, 0), {"robust_accuracy": every, **metrics}
