"""Half precision: attacks and threats compute in float32 and round into their sets."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Verb = TypeVar("Verb", bound=Callable[..., Any])


def wide_type(image: Array) -> Any:
    """Of coordinates: float32 for images of fewer bits, else the images' type."""
    return image.dtype if image.dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def widened(images: Array) -> Array:
    """Images in float32 or better, in which an attack on them is computed."""
    return images if images.dtype.itemsize >= 4 else images.astype(jnp.float32)


def shown(x: Array, images: Array) -> Array:
    """Images of an attack in the dtype of the clean ones: what the network sees and users get.

    No value is farther from the clean image than before, so no ball and no box is left by rounding.
    The derivative is that of the identity.

    Args:
      x: `[b, h, w, c]` as computed.
      images: `[b, h, w, c]`, the clean images.

    Returns:
      `[b, h, w, c]` in the dtype of `images`; `x` itself if it has that.
    """
    if x.dtype == images.dtype:
        return x
    centre, fixed = images.astype(x.dtype), jax.lax.stop_gradient(x)
    rounded = rounded_inward(fixed.astype(images.dtype), centre, jnp.abs(fixed - centre))
    return (x + (rounded.astype(x.dtype) - fixed)).astype(images.dtype)


def rounded_inward(x: Array, centre: Array, bound: Array) -> Array:
    """`x`, or its neighbour towards `centre` where it is farther off than `bound`."""
    outside = jnp.abs(x.astype(centre.dtype) - centre) > bound
    return jnp.where(outside, jax.lax.nextafter(x, centre.astype(x.dtype)), x)


def in_float32(verb: Verb) -> Verb:
    """A verb of a norm threat, whose results in half precision are rounded towards zero.

    In half precision norms overflow and underflow, and a radius of 8/255 is rounded by up to 0.4 %.
    """

    @functools.wraps(verb)
    def call(threat: Any, first: Array, second: Array, *rest: Any) -> Array:
        is_key = jnp.issubdtype(first.dtype, jax.dtypes.prng_key)
        dtype = second.dtype if is_key else first.dtype
        if dtype.itemsize >= 4:
            return verb(threat, first, second, *rest)
        wide = second.astype(jnp.float32)
        if is_key:
            return toward_zero(verb(threat, first, wide), dtype)
        return toward_zero(verb(threat, first.astype(jnp.float32), wide, *rest), dtype)

    return call  # type: ignore[return-value]


def toward_zero(values: Array, dtype: Any) -> Array:
    """`values` in a narrower type, none of them larger."""
    narrow = values.astype(dtype)
    larger = jnp.abs(narrow.astype(values.dtype)) > jnp.abs(values)
    return jnp.where(larger, jax.lax.nextafter(narrow, jnp.zeros_like(narrow)), narrow)
