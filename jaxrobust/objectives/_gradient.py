"""Gradients of a loss with respect to images, as the one-step attacks use them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attackable import checked_logits, losses_of, prepare
from jaxrobust.inputs import InputError, as_number
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._objective import Batch, Stateful
from jaxrobust.precision import shown, widened
from jaxrobust.threats import described, norm_of
from jaxrobust.typing import LogitsFn, Loss


class Slope(NamedTuple):
    """The gradient at some images.

    Attributes:
      gradient: `[b, h, w, c]` of the loss's sum, in float32 or better; NaN is 0.
      logits: `[b, k]` there.
      statistics: running statistics after the pass, where it moves them; else `None`.
    """

    gradient: Array
    logits: Array
    statistics: Any


def slope(
    logits_fn: LogitsFn | Stateful, images: Array, points: Array, labels: Array, loss: Loss
) -> Slope:
    """The gradient of a loss at perturbed images, one forward and backward pass.

    Args:
      logits_fn: the network, whose parameters are constants.
      images: `[b, h, w, c]`, clean: their dtype is what the network is shown.
      points: `[b, h, w, c]`, where the gradient is taken.
      labels: `[b]`, or what `loss` takes.
      loss: `(logits, labels) -> [b]`.

    Returns:
      `Slope`.
    """
    apply, before = _with_statistics(logits_fn)
    prepared = prepare(apply, images, before)

    def total(x: Array) -> tuple[Array, tuple[Array, Any]]:
        logits, after = prepared(shown(x, images), before)
        logits = checked_logits(logits, labels)
        return jnp.sum(losses_of(loss, logits, labels)), (logits, after)

    gradient, (logits, after) = jax.grad(total, has_aux=True)(points)
    found = Slope(jnp.nan_to_num(gradient), logits, after)
    return jax.lax.stop_gradient(found)


def seen(logits_fn: LogitsFn | Stateful, images: Array) -> tuple[Array, LogitsFn | Stateful]:
    """Logits of a pass, and the network after it: a stateful one has moved its statistics."""
    apply, before = _with_statistics(logits_fn)
    logits, after = jax.lax.stop_gradient(prepare(apply, images, before)(images, before))
    if isinstance(logits_fn, Stateful):
        return logits, logits_fn._replace(batch_stats=after)
    return logits, logits_fn


def statistics_of(logits_fn: LogitsFn | Stateful, found: Slope) -> Any:
    """What `Views.batch_stats` is after the pass of a `slope`."""
    return found.statistics if isinstance(logits_fn, Stateful) else None


def _with_statistics(logits_fn: LogitsFn | Stateful) -> tuple[Callable[..., Any], Any]:
    if isinstance(logits_fn, Stateful):
        return logits_fn.apply, logits_fn.batch_stats
    return (lambda x, nothing: (logits_fn(x), nothing)), ()


def radius(threat: Any, images: Array, name: str) -> Array:
    """The radius of an l_inf threat, to be broadcast over images.

    Args:
      threat: of an objective that takes sign steps.
      images: `[b, h, w, c]`.
      name: of the objective, for the message.

    Returns:
      `[]` or `[b, 1, 1, 1]`, in float32 or better.

    Raises:
      InputError: for another threat.
    """
    if norm_of(threat) != "linf":
        raise InputError(
            f"threat must be linf for {name}, whose steps are signs; got {described(threat)}"
        )
    return over_images(threat.eps, images, "eps")


def over_images(number: Any, images: Array, name: str) -> Array:
    """A number, or one per example, to be broadcast over images.

    Raises:
      InputError: if it is of another shape.
    """
    as_number(number, name=name, lead=(len(images),))
    value = jnp.asarray(number, widened(images).dtype)
    return value.reshape(-1, 1, 1, 1) if value.ndim else value


def uniform(key: Array, images: Array) -> Array:
    """Noise in (-1, 1) for every value of every image, one draw per example."""
    keys = fold_keys(per_example_keys(key, len(images)), 0)
    shape, dtype = images.shape[1:], widened(images).dtype
    return jax.vmap(lambda k: jax.random.uniform(k, shape, dtype, -1, 1))(keys)


def smoothed_slope(
    logits_fn: LogitsFn | Stateful, batch: Batch, start: Array, label_smoothing: float
) -> Slope:
    """`slope` of the smoothed cross-entropy at a perturbation of a batch."""
    loss = partial(cross_entropy, label_smoothing=label_smoothing)
    points = widened(batch.images) + start
    return slope(logits_fn, batch.images, points, batch.labels, loss)


def cut(delta: Array, images: Array) -> Array:
    """A perturbation brought into the box."""
    wide = widened(images)
    return jnp.clip(delta, -wide, 1 - wide)


def cut_to_ball(delta: Array, images: Array, eps: Array) -> Array:
    """A perturbation brought into the l_inf ball, and then into the box."""
    return cut(jnp.clip(delta, -eps, eps), images)


def moved(images: Array, delta: Array) -> Array:
    """The images after a perturbation, in the box and in their own dtype; constants."""
    return jax.lax.stop_gradient(shown(jnp.clip(widened(images) + delta, 0, 1), images))
