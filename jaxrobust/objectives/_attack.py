"""The PGD inside the objectives: where it starts, how far it steps."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import Attacked, pgd
from jaxrobust.inputs import InputError, as_batch, as_network_logits, as_number
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.objectives._objective import Batch, Stateful
from jaxrobust.precision import widened
from jaxrobust.threats import Threat, batched, default_step
from jaxrobust.typing import LogitsFn, Loss

Start = Literal["uniform", "gaussian", "gaussian_in_box"]


def inner_pgd(
    logits_fn: LogitsFn | Stateful,
    key: Array,
    batch: Batch,
    threat: Threat,
    *,
    loss: Loss,
    steps: int,
    step_size: ArrayLike | None,
    start: Start,
    stop_after: ArrayLike | None = None,
) -> Attacked:
    """PGD as the training objectives run it: one start, the last iterate."""
    if stop_after is not None:
        as_number(stop_after, name="tau", lead=(len(batch.images),))
    begin = initial(key, batch.images, threat, start)
    options: Any = {"loss": loss, "steps": steps, "step_size": step_size, "stop_after": stop_after}
    return pgd_from(logits_fn, key, batch, threat, begin, **options)


def pgd_from(
    logits_fn: LogitsFn | Stateful,
    key: Array,
    batch: Batch,
    threat: Threat,
    begin: Any,
    *,
    loss: Loss,
    steps: int,
    step_size: ArrayLike | None,
    stop_after: ArrayLike | None = None,
) -> Attacked:
    """PGD from a given perturbation; the key is unused then."""
    stateful = isinstance(logits_fn, Stateful)
    return pgd(
        logits_fn.apply if stateful else logits_fn,  # type: ignore[union-attr, arg-type]
        key,
        batch.images,
        batch.labels,
        threat=threat,
        loss=loss,
        steps=steps,
        step_size=default_step(threat, steps) if step_size is None else step_size,
        start=begin,
        stop_after=stop_after,
        state=logits_fn.batch_stats if stateful else None,  # type: ignore[union-attr]
    )


def from_draw(
    logits_fn: LogitsFn | Stateful,
    batch: Batch,
    threat: Threat,
    start: Any,
    *,
    kind: Start,
    loss: Loss,
    steps: int,
    step_size: ArrayLike | None,
) -> Attacked:
    """PGD from a drawn perturbation, which the box cuts where its kind is cut."""
    images, _ = as_batch(*batch)
    on_pixels = getattr(start, "shape", None) == images.shape
    if kind != "gaussian" and on_pixels:
        start = jnp.clip(start, -widened(images), 1 - widened(images))
    options: Any = {"loss": loss, "steps": steps, "step_size": step_size}
    return pgd_from(logits_fn, jax.random.key(0), batch, threat, start, **options)


def clean_output(logits_fn: LogitsFn, images: Array) -> Array:
    """The network's logits `[b, k]` on clean images, constants; of no images `[0, 2]`."""
    if not len(images):  # a network may not know the shape of its logits then
        return jnp.zeros((0, 2), widened(images).dtype)
    return jax.lax.stop_gradient(as_network_logits(logits_fn(images), batch=len(images)))


def initial(key: Array, images: Array, threat: Any, start: Start) -> Any:
    """The perturbation that an attack begins with, one draw per example.

    "uniform" is the threat's own random point, cut to the box. "gaussian" is noise of standard
    deviation 0.001, neither clipped nor projected; "gaussian_in_box" clips the image that it
    makes. For threats that are not on pixel values noise has no meaning (degrees, pixels of
    shift), and they start at random there too.
    """
    if start not in get_args(Start):
        raise InputError(f"start must be one of {', '.join(get_args(Start))}, got {start!r}")
    images = images if images.dtype.itemsize >= 4 else images.astype(jnp.float32)
    keys = fold_keys(per_example_keys(key, len(images)), 0)
    shape = jax.eval_shape(batched(threat, len(images)).init, keys, images)
    on_pixels = hasattr(shape, "shape") and shape.shape == images.shape
    if start == "uniform" or not on_pixels:
        return batched(threat, len(images)).init(keys, images)
    noise = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:], images.dtype))(keys)
    if start == "gaussian":
        return 1e-3 * noise
    return jnp.clip(images + 1e-3 * noise, 0, 1) - images
