"""NuAT: one-step training with the nuclear norm of the change of a batch's logits."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch, as_number
from jaxrobust.losses import cross_entropy, nuclear
from jaxrobust.objectives._gradient import (
    cut,
    cut_to_ball,
    moved,
    radius,
    seen,
    slope,
    statistics_of,
    uniform,
)
from jaxrobust.objectives._objective import (
    AttackStatistics,
    Batch,
    Clock,
    ObjectiveState,
    Pass,
    Sizes,
    Stateful,
    Views,
    correct,
    devices_of,
)
from jaxrobust.objectives._ranges import ANY_STATISTICS, check_ranges
from jaxrobust.precision import widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn, Loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NuAT:
    r"""NuAT: cross-entropy on clean images, and the nuclear norm of the logits' change.

    .. math:: \mathrm{CE}(f(x), y) + \frac{\lambda}{B} \|Z(x) - Z(x')\|_*

    The norm is that of the whole batch's matrix of logits, over all devices. The attack is a sign
    step from random signs of half the radius; its loss is the cross-entropy, and in every second
    step of an epoch (the second, the fourth, ...) the norm as well.

    In the published runs `lam` rises from epoch to epoch, from 0 to almost 4: a schedule of
    `objective.lam`. The threat must be l_inf.

    Cost: 9 forward units per image.

    Args:
      lam: weight of the norm. May be traced.
      label_smoothing: of the cross-entropy in attack and loss; 0.4 in the FastAT benchmark.
      attack_statistics: BatchNorm in the attack: "update" as published (its passes over clean
        images and starts move the running statistics too), "batch" or "running".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.nuat(lam=4.0).passes]
      ['adv', 'clean']

    References:
      Sriramanan et al., Towards Efficient and Effective Adversarial Training, 2021 (NeurIPS),
      Algorithm 1.
    """

    lam: ArrayLike = 4.0
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    attack_statistics: AttackStatistics = field(default="update", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=ANY_STATISTICS)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"), Pass("clean", "clean"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """`step` `[]`, the number of the step in its epoch, from 0."""
        return {"step": jnp.zeros((), jnp.int32)}

    def begin_step(
        self, state: ObjectiveState, logits_fn: LogitsFn, key: Array, threat: Threat, clock: Clock
    ) -> ObjectiveState:
        """Counts from the epoch's start."""
        return {"step": clock.in_epoch.astype(state["step"].dtype)}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`start` `[b, h, w, c]`, uniform in (0, 1): values below a half move up."""
        images, _ = as_batch(*batch)
        return {"start": (uniform(key, images) + 1) / 2}

    def attack(
        self,
        logits_fn: LogitsFn | Stateful,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """A sign step from random signs."""
        images, labels = as_batch(*batch)
        eps = radius(threat, images, "nuat")
        start = cut(eps / 2 * jnp.sign(0.5 - draws["start"]), images)
        clean, network = seen(logits_fn, images)
        step = 0 if state is None else state.get("step", 0)
        loss = self._attack_loss(clean, step, state)
        found = slope(network, images, widened(images) + start, labels, loss)
        delta = cut_to_ball(start + eps * jnp.sign(found.gradient), images, eps)
        return Views({"adv": moved(images, delta)}, {}, None, statistics_of(logits_fn, found))

    def _attack_loss(self, clean: Array, step: Array | int, state: ObjectiveState | None) -> Loss:
        """Cross-entropy, and in odd steps the norm of the batch for every example."""
        devices = devices_of(state)
        before = devices.gather(clean)

        def loss(logits: Array, labels: Array) -> Array:
            hard = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
            norm = nuclear(before, devices.gather(logits)).astype(hard.dtype)
            as_number(self.lam, name="lam", lead=hard.shape)
            weight = jnp.where(jnp.asarray(step) % 2 == 1, self.lam, 0)
            return hard + weight.astype(hard.dtype) * norm

        return loss

    def inner(
        self,
        logits_fn: LogitsFn | Stateful,
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
        """Cross-entropy on clean images, and the norm, the same for every example."""
        devices = devices_of(state)
        clean, adv = logits["clean"], logits["adv"]
        loss = cross_entropy(clean, batch.labels, label_smoothing=self.label_smoothing)
        norm = nuclear(devices.gather(clean), devices.gather(adv)).astype(loss.dtype)
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "nuclear": jnp.broadcast_to(norm, loss.shape),
        }
        as_number(self.lam, name="lam", lead=loss.shape)
        return loss + jnp.asarray(self.lam, loss.dtype) * norm, metrics
