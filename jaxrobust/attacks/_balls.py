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
    values = delta.reshape(len(delta), -1)
    width = jnp.finfo(values.dtype).bits
    # Floats that are not negative are ordered as their bits are. One bit of the threshold after the
    # other, from the top, is less work than sorting.
    bits = jax.lax.bitcast_convert_type(jnp.abs(values), f"uint{width}")
    wanted = jnp.clip(count.astype(jnp.int32), 1, values.shape[-1])[:, None]

    def next_bit(i: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        threshold, kept = found
        higher = threshold | (jnp.ones_like(threshold) << (width - 2 - i).astype(threshold.dtype))
        reaching = bits >= higher
        enough = jnp.sum(reaching, -1, dtype=jnp.int32, keepdims=True) >= wanted
        # The mask comes from here: a value that is computed once more, elsewhere, may differ from
        # itself by rounding.
        return jnp.where(enough, higher, threshold), jnp.where(enough, reaching, kept)

    start = jnp.zeros((len(bits), 1), bits.dtype), jnp.ones(bits.shape, bool)
    kept = jax.lax.fori_loop(0, width - 1, next_bit, start)[1]
    return jnp.where(kept, values, 0).reshape(delta.shape)


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
