"""FGSM-PGI: one-step training from the perturbation of the epoch before."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch, as_number
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._gradient import (
    cut,
    cut_to_ball,
    moved,
    over_images,
    radius,
    smoothed_slope,
)
from jaxrobust.objectives._liet import single_radius
from jaxrobust.objectives._objective import (
    Batch,
    Clock,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    correct,
    devices_of,
    needed,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.precision import widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PGI:
    r"""FGSM-PGI: one step from what the epoch before has found, and logits that stay near.

    .. math:: \mathrm{CE}(f(x'), y) + \frac{\lambda}{k} \|z(x') - z(x_0)\|_2^2

    Every training example has a perturbation, the next start, and a momentum of gradients; both
    begin anew every `reset` epochs, the perturbation at random signs of size eps. The gradient in
    the momentum is divided by the l_1 norm of the whole batch's, as published. The memory takes 8
    bytes for every value of every training image (float32), 1.2 GB for CIFAR-10, on every device.
    It is in the coordinates of the augmented image, whose crop and flip are others the next time;
    that is published so, too.

    Needs data in memory and an l_inf threat.

    Cost: 8 forward units per image.

    Args:
      lam: weight of the squared error between the logits. May be traced.
      momentum: decay of the momentum. May be traced.
      label_smoothing: of the cross-entropy in attack and loss; 0.4 in the FastAT benchmark.
      reset: epochs after which the memory begins anew.
      attack_statistics: BatchNorm in the attack: "batch" as published, or "running". The pass over
        the starts, which is the attack's, updates the running statistics as an outer pass.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.pgi().remembered
      ('delta', 'momentum')

    References:
      Jia et al., Prior-Guided Adversarial Initialization for Fast Adversarial Training, 2022
      (arXiv:2207.08859), Eq. 6 to 9.
    """

    lam: ArrayLike = 10.0
    momentum: ArrayLike = 0.3
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    reset: int = field(default=40, metadata={"static": True})
    attack_statistics: Statistics = field(default="batch", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("start", "start"), Pass("adv", "adv"))

    @property
    def remembered(self) -> tuple[str, ...]:
        """The names of what is held for every training example."""
        return ("delta", "momentum")

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """`delta` and `momentum` `[n, h, w, c]`; 0 until the first step draws the deltas."""
        nothing = jnp.zeros((sizes.examples, *sizes.image_shape))
        return {"delta": nothing, "momentum": jnp.zeros_like(nothing)}

    def begin_step(
        self, state: ObjectiveState, logits_fn: LogitsFn, key: Array, threat: Threat, clock: Clock
    ) -> ObjectiveState:
        """Begins anew every few epochs."""
        old = state["delta"]
        eps = single_radius(threat, old, "pgi")

        def anew() -> ObjectiveState:
            positive = jax.random.bernoulli(key, shape=old.shape)
            delta = jnp.where(positive, eps, -eps).astype(old.dtype)
            return {"delta": delta, "momentum": jnp.zeros_like(state["momentum"])}

        due = (clock.epoch % self.reset == 0) & (clock.in_epoch == 0)
        return jax.lax.cond(due, anew, lambda: dict(state))

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """Nothing: the start is remembered."""
        return {}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """A step from the remembered perturbation, and what is remembered from now on."""
        images, _ = as_batch(*batch)
        eps = radius(threat, images, "pgi")
        held = needed(state, "delta", "momentum")
        wide = widened(images)
        delta = held["delta"].astype(wide.dtype)
        start = cut(delta, images)
        found = smoothed_slope(logits_fn, batch, start, self.label_smoothing)
        size = devices_of(state).sum(jnp.sum(jnp.abs(found.gradient)))
        decay = over_images(self.momentum, images, "momentum")
        momentum = found.gradient / jnp.where(size > 0, size, 1)
        momentum += decay * held["momentum"].astype(wide.dtype)
        following = cut_to_ball(delta + eps * jnp.sign(momentum), images, eps)
        adv = cut_to_ball(delta + eps * jnp.sign(found.gradient), images, eps)
        views = {"start": moved(images, start), "adv": moved(images, adv)}
        return Views(views, {"delta": following, "momentum": momentum})

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack`."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy at the end of the step, and the squared error of the logits along it."""
        start, adv = logits["start"], logits["adv"]
        loss = cross_entropy(adv, batch.labels, label_smoothing=self.label_smoothing)
        near = jnp.mean(jnp.square(adv - start), -1).astype(loss.dtype)
        metrics = {
            "robust_accuracy": correct(adv, batch.labels),
            "start_accuracy": correct(start, batch.labels),
        }
        as_number(self.lam, name="lam", lead=loss.shape)
        return loss + jnp.asarray(self.lam, loss.dtype) * near, metrics
