"""Projections of perturbations onto balls of a radius per example, without the box."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._norms import column, norm_of
from jaxrobust.typing import AnyNorm


def onto_ball(delta: Array, radius: Array, norm: AnyNorm) -> Array:
    """The nearest perturbations `[b, h, w, c]` of norm at most `radius` `[b]`.

    In "l0", all values as large as the last one that fits are kept, so ties may keep more. At least
    one value is kept.
    """
    if norm == "linf":
        return jnp.clip(delta, -column(radius), column(radius))
    if norm == "l2":
        size = jnp.maximum(norm_of(delta, "l2"), 1e-12)
        return delta * column(jnp.minimum(radius / size, 1))
    if norm == "l1":
        return _onto_l1(delta, radius)
    return largest_values(delta, radius)


def largest_values(delta: Array, count: Array) -> Array:
    """The `count` `[b]` largest values, and those as large as the last of them; at least one."""
    size = jnp.abs(delta.reshape(len(delta), -1))
    places = jnp.broadcast_to(jnp.arange(size.shape[-1], dtype=jnp.int32)[None], size.shape)
    rising, order = jax.lax.sort((-size, places), num_keys=1)
    last = jnp.clip(count.astype(jnp.int32), 1, size.shape[-1]) - 1
    threshold = jnp.take_along_axis(rising, last[:, None], -1)
    # By rank: a value that is computed once more, elsewhere, may differ from itself by rounding.
    kept = jnp.sum(rising <= threshold, -1, dtype=jnp.int32, keepdims=True)
    rank = jax.lax.sort((order, places), num_keys=1)[1]
    return jnp.where(rank < kept, delta.reshape(size.shape), 0).reshape(delta.shape)


def _onto_l1(delta: Array, radius: Array) -> Array:
    """Soft thresholding by the number at which the absolute values sum to the radius.

    It keeps as many of the sorted values as exceed the threshold that those values imply.
    """
    size = jnp.abs(delta.reshape(len(delta), -1))
    falling = -jnp.sort(-size, -1)
    count = jnp.arange(1, size.shape[-1] + 1, dtype=size.dtype)[None]
    thresholds = (jnp.cumsum(falling, -1) - radius[:, None]) / count
    # None is kept at radius 0: the first threshold is then the largest value.
    kept = jnp.maximum(jnp.sum(falling > thresholds, -1), 1)
    threshold = jnp.take_along_axis(thresholds, kept[:, None] - 1, -1)
    shrunk = jnp.maximum(size - jnp.maximum(threshold, 0), 0).reshape(delta.shape)
    return jnp.sign(delta) * shrunk
