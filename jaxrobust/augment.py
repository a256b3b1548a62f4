"""Augmentations: each call makes a function `(key, image [h, w, c]) -> image`, vmapped by users.

Images are floats in [0, 1]; the functions are traceable and keep shape and dtype.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Augmentation = Callable[[Array, Array], Array]


def pad_crop(*, pad: int = 4) -> Augmentation:
    """Zero-pads by `pad` pixels on every side and crops a random window of the old size.

    Args:
      pad: pixels, at least 0.

    Returns:
      `(key, image) -> image`.

    Raises:
      ValueError: if `pad` is negative.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> augment.pad_crop(pad=1)(jax.random.key(0), jnp.ones((8, 8, 1))).shape
      (8, 8, 1)
    """
    if pad < 0:
        raise ValueError(f"pad must be at least 0 pixels, got {pad}")

    def apply(key: Array, image: Array) -> Array:
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)

    return apply


def flip(*, probability: float = 0.5) -> Augmentation:
    """Mirrors the image left to right with the given probability.

    Args:
      probability: in [0, 1].

    Returns:
      `(key, image) -> image`.

    Raises:
      ValueError: if `probability` is not in [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> image = jnp.arange(2.0).reshape(1, 2, 1)
      >>> augment.flip(probability=1.0)(jax.random.key(0), image).ravel().tolist()
      [1.0, 0.0]
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}")

    def apply(key: Array, image: Array) -> Array:
        return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)

    return apply
