"""Half precision: attacks compute in float32 and return images in the dtype of the clean ones."""

import jax
import jax.numpy as jnp
from jax import Array


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
