"""RAMP: the worse of two norms, and predictions of both drawn together."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import ramp
from jaxrobust.objectives._norms import balls, picked, strongest
from jaxrobust.objectives._objective import (
    Batch,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    correct,
    devices_of,
    hard_batch,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn

SOURCE, TARGET = "linf", "l1"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Ramp:
    """RAMP: cross-entropy on the worse of an l_inf and an l_1 image, and logit pairing of the two.

    The loss is `losses.ramp` with l_inf as the source. The attacks are E-AT's; of equal attack
    losses the l_1 image is taken. The threat must be a union with l_inf and l_1.

    The paper also projects the weights after every epoch onto what natural training would have
    changed: `training.gradient_projection`, for a loop of your own.

    Cost: `4 * steps + 13` forward units per image.

    Args:
      lbd: weight of the pairing; 5 for a ResNet-18 from scratch, 2 for a wide one, 1.5 for
        fine-tuning. May be traced.
      steps: attack steps in each norm.
      attack_statistics: BatchNorm in the attacks: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.ramp(lbd=5.0).passes]
      ['target', 'source', 'adv']

    References:
      Jiang and Singh, RAMP: Boosting Adversarial Robustness Against Multiple l_p Perturbations,
      2024 (arXiv:2402.06827), Section 4.
    """

    lbd: ArrayLike = 1.5
    steps: int = field(default=10, metadata={"static": True})
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return tuple(Pass(name, name) for name in ("target", "source", "adv"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """Nothing: only the devices of the batch are of interest."""
        return {}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """Nothing: the attacks start at the clean image."""
        return {}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """APGD in both norms, and the image of higher loss."""
        batch = hard_batch("ramp", batch)
        members = balls(threat, "ramp", SOURCE, TARGET)
        found = [
            strongest(logits_fn, batch, members[norm], steps=self.steps)
            for norm in (TARGET, SOURCE)
        ]
        choice = jnp.argmax(jnp.stack([each.loss for each in found]), 0)
        images = [each.images for each in found]
        views = {"target": images[0], "source": images[1], "adv": picked(choice, images)}
        return Views(views, {})

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack`."""
        return self.attack(logits_fn, batch, threat, {}, state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.ramp`, with the share of the whole batch."""
        source, target, adv = (logits[name] for name in ("source", "target", "adv"))
        right = correct(source, batch.labels)
        share = devices_of(state).mean(jnp.mean(right))
        loss = ramp(source, target, adv, batch.labels, lbd=self.lbd, share=share)
        metrics = {
            "robust_accuracy": correct(adv, batch.labels),
            "robust_accuracy_linf": right,
            "robust_accuracy_l1": correct(target, batch.labels),
        }
        return loss, metrics
