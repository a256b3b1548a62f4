"""HAT: helper examples beyond the adversarial ones, labelled by a standard network."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch, as_network_logits
from jaxrobust.losses import hat
from jaxrobust.objectives._attack import Start, from_draw, initial
from jaxrobust.objectives._gradient import over_images
from jaxrobust.objectives._objective import (
    Batch,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    correct,
    hard_batch,
    needed,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.objectives._trades import away_from
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class HAT:
    r"""HAT: TRADES, and helper examples beyond the adversarial ones with labels of their own.

    .. math:: x_h = x + h (x' - x), \qquad y_h = \arg\max \hat f(x')

    where :math:`\hat f` is a frozen network of standard training, the experiment's `helper`. The
    helper images are not cut to the box. The loss is `losses.hat`.

    The published runs with extra data are `hat(beta=3.5, label_smoothing=0.1, start="uniform",
    attack_statistics="batch")`.

    Cost: `2 * steps + 11` forward units per image, if the helper is as large as the network.

    Args:
      h: how far the helper examples are, in perturbations. May be traced, as the next two.
      beta: weight of the divergence.
      gamma: weight of the helper examples.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" or "batch".
      label_smoothing: of the clean term, as in `losses.cross_entropy`.
      start: where the attack begins: "gaussian", or "uniform" in the threat and cut to the box.

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.hat().passes]
      ['clean', 'adv', 'helper']

    References:
      Rade and Moosavi-Dezfooli, Reducing Excessive Margin to Achieve a Better Accuracy vs.
      Robustness Trade-off, 2022 (ICLR), Eq. 5.
    """

    h: ArrayLike = 2.0
    beta: ArrayLike = 2.5
    gamma: ArrayLike = 0.5
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    start: Start = field(default="gaussian", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def networks(self) -> tuple[str, ...]:
        """The frozen network."""
        return ("helper",)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"), Pass("adv", "adv"), Pass("helper", "helper"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """Nothing but the helper, which is no part of the state."""
        return {}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`start`, the perturbation that the attack begins with."""
        images, _ = as_batch(*batch)
        return {"start": initial(key, images, threat, self.start)}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """TRADES' attack, and the helper examples with their labels."""
        images, _ = batch = hard_batch("hat", batch)
        helper = needed(state, "helper")["helper"]
        loss = away_from("clean", "kl", logits_fn, batch)
        options: Any = {"steps": self.steps, "step_size": self.step_size, "kind": self.start}
        adv = from_draw(logits_fn, batch, threat, draws["start"], loss=loss, **options).images
        beyond = images + over_images(self.h, images, "h").astype(images.dtype) * (adv - images)
        named = as_network_logits(helper(adv), batch=len(adv), name="helper")
        labels = jnp.argmax(named, -1).astype(jnp.int32)
        return Views({"adv": adv, "helper": beyond}, {"helper_labels": labels})

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.hat`."""
        clean, adv = logits["clean"], logits["adv"]
        loss = hat(
            clean,
            adv,
            logits["helper"],
            batch.labels,
            extras["helper_labels"],
            beta=self.beta,
            gamma=self.gamma,
            label_smoothing=self.label_smoothing,
        )
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "helper_accuracy": correct(logits["helper"], extras["helper_labels"]),
        }
        return loss, metrics
