"""GradAlign: one-step training with a penalty on gradients that turn within the threat."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_batch, as_number
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._fgsm_training import smoothed_error
from jaxrobust.objectives._gradient import (
    cut,
    cut_to_ball,
    moved,
    over_images,
    radius,
    smoothed_slope,
    statistics_of,
    uniform,
)
from jaxrobust.objectives._objective import (
    AttackStatistics,
    Batch,
    ObjectiveState,
    Pass,
    Sizes,
    Stateful,
    Views,
    devices_of,
)
from jaxrobust.objectives._ranges import ANY_STATISTICS, check_ranges
from jaxrobust.precision import widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GradAlign:
    r"""GradAlign: FGSM from the clean image, and gradients that agree within the threat.

    .. math:: \mathrm{CE}(f(x'), y)
              + \lambda (1 - \cos(\nabla_x \ell(x, y), \nabla_x \ell(x + \eta, y)))

    with :math:`\eta` uniform in the threat and cut to the box. The first gradient is a constant,
    the one that the attack steps along; the second is differentiated, so a step costs about three
    times that of `fgsm_rs`. Examples with a vanishing gradient are left out of the mean.

    The running statistics move with the passes clean (the attack's), adversarial and
    uniform point, in this order.
    The authors' own script differentiates through a clip to the box, which halves the gradient of
    pixels at exactly 0 or 1; this is the form of their README, and of the FastAT benchmark.

    The threat must be l_inf.

    Cost: 11 forward units per image, 6 of them for the second derivatives.

    Args:
      lam: weight of the penalty; 0.2 for CIFAR-10 at 8/255, 0.02 10^(255 eps / 8) in general. May
        be traced.
      step_size: of the sign step; default 1.25 eps (FastAT: eps). May be traced.
      label_smoothing: of the loss on adversarial images alone; 0.4 in the FastAT benchmark.
      attack_statistics: BatchNorm in the attack: "update" as published, "batch" or "running".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.grad_align(lam=0.2).passes
      (Pass(name='adv', view='adv'),)

    References:
      Andriushchenko and Flammarion, Understanding and Improving Fast Adversarial Training, 2020
      (arXiv:2007.02617), Eq. 6.
    """

    lam: ArrayLike = 0.2
    step_size: ArrayLike | None = None
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    attack_statistics: AttackStatistics = field(default="update", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=ANY_STATISTICS)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """Nothing: only the devices of the batch are of interest."""
        return {}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`point` `[b, h, w, c]`: noise in (-eps, eps), before the box."""
        images, _ = as_batch(*batch)
        return {"point": radius(threat, images, "grad_align") * uniform(key, images)}

    def attack(
        self,
        logits_fn: LogitsFn | Stateful,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """A step from the clean image, and the uniform point."""
        images, _ = as_batch(*batch)
        eps = radius(threat, images, "grad_align")
        size = 1.25 * eps
        if self.step_size is not None:
            size = over_images(self.step_size, images, "step_size")
        found = smoothed_slope(logits_fn, batch, jnp.zeros_like(widened(images)), 0.0)
        delta = cut_to_ball(size * jnp.sign(found.gradient), images, eps)
        point = moved(images, cut(draws["point"], images))
        views = {"adv": moved(images, delta), "point": point}
        extras = {"input_gradient": found.gradient}
        return Views(views, extras, None, statistics_of(logits_fn, found))

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
        """Cross-entropy on the adversarial images; `penalty` is the rest."""
        return smoothed_error(logits["adv"], batch, self.label_smoothing)

    def penalty(
        self, network: Stateful, batch: Batch, views: Views, state: ObjectiveState | None = None
    ) -> tuple[Array, dict[str, Array], Any]:
        """`lam` times one minus the cosine of the two input gradients."""

        def total(points: Array) -> tuple[Array, Any]:
            logits, statistics = network.apply(points, network.batch_stats)
            return jnp.sum(cross_entropy(logits, batch.labels)), statistics

        gradient, statistics = jax.grad(total, has_aux=True)(views.images["point"])
        value, counted = _misaligned(views.extras["input_gradient"], gradient)
        share = devices_of(state).mean(jnp.mean(counted.astype(value.dtype)))
        as_number(self.lam, name="lam", lead=value.shape)
        scale = jnp.asarray(self.lam, value.dtype) / jnp.where(share > 0, share, 1)
        return scale * value, {"alignment": 1 - value}, statistics


def gradient_alignment(logits_fn: LogitsFn, images: Array, points: Array, labels: Array) -> Array:
    r"""One minus the cosine between the input gradients at two points, one value per example.

    .. math:: 1 - \cos(\nabla_x \mathrm{CE}(f(x), y), \nabla_u \mathrm{CE}(f(u), y))

    The first gradient is a constant; the second may be differentiated with respect to parameters
    that `logits_fn` closes over (a second derivative of the network).

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      points: `[b, h, w, c]`, of the second gradient.
      labels: integer class indices `[b]`.

    Returns:
      `[b]` in [0, 2]; 0, with derivative 0, where one of the gradients vanishes.

    Raises:
      ValueError: if an argument is not of the stated kind, or `points` has another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.objectives import gradient_alignment
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> x = jnp.full((1, 2, 2, 1), 0.5)
      >>> gradient_alignment(logits_fn, x, 0.9 * x, jnp.array([0])).tolist()
      [0.0]

    References:
      Andriushchenko and Flammarion, 2020 (arXiv:2007.02617), Eq. 5.
    """
    images, labels = as_batch(images, labels)
    points = jnp.asarray(points, images.dtype)
    if points.shape != images.shape:
        raise InputError(f"points must have the shape of images {images.shape}, got {points.shape}")

    def gradient(x: Array) -> Array:
        return jax.grad(lambda x: jnp.sum(cross_entropy(logits_fn(x), labels)))(x)

    fixed = jax.lax.stop_gradient(gradient(images))
    return _misaligned(fixed, gradient(points))[0]


def _misaligned(fixed: Array, gradient: Array) -> tuple[Array, Array]:
    """One minus the cosine `[b]`, 0 where a gradient vanishes; and where none does."""

    def flat(g: Array) -> Array:
        return widened(g).reshape(len(g), -1)

    a, b = flat(fixed), flat(gradient)
    counted = jnp.any(a != 0, -1) & jnp.any(b != 0, -1)
    # Scaled first, because squares of small gradients underflow.
    a, b = (_scaled(v, counted) for v in (a, b))
    cosine = jnp.sum(a * b, -1) / jnp.sqrt(jnp.sum(a * a, -1) * jnp.sum(b * b, -1))
    return jnp.where(counted, 1 - cosine, 0), counted


def _scaled(vectors: Array, counted: Array) -> Array:
    """Vectors with a largest entry of 1; all ones where they are not counted."""
    safe = jnp.where(counted[:, None], vectors, 1)
    return safe / jax.lax.stop_gradient(jnp.max(jnp.abs(safe), -1, keepdims=True))
