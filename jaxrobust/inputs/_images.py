"""Images `[b, h, w, c]`."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrobust.inputs._error import InputError, as_array, concrete

ROUNDING = 1e-6  # images this far outside of [0, 1] are clipped, not refused
MOST_CHANNELS_FIRST = 4  # an axis this short in front of two longer ones holds channels
LONGEST_ASPECT = 2  # signals [n, 1, w, c] are longer than images are wide


def as_images(images: Any, *, name: str = "images", empty: bool = True) -> Any:
    """Images `[b, h, w, c]`, floating point in [0, 1].

    Args:
      images: a NumPy or JAX array, or nested lists.
      name: of the argument, for the message.
      empty: whether there may be no images.

    Returns:
      The array: NumPy stays NumPy, JAX stays JAX. Values outside of [0, 1] by rounding (1e-6) are
      clipped.

    Raises:
      InputError: for another rank, dtype or layout, values outside of [0, 1], or NaN.
    """
    array = as_array(images, name=name)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{name} must be floating point in [0, 1], got {array.dtype}; divide uint8 by 255"
        )
    if array.dtype.itemsize < 2:
        raise InputError(
            f"{name} must be of 16 bits or more, because attacks move them by less, got "
            f"{array.dtype}; use {name}.astype(np.float32)"
        )
    as_layout(array.shape, name=name, axes="[b, h, w, c]" if empty else "[n, h, w, c]")
    if not empty and not len(array):
        raise InputError(f"{name} must be [n, h, w, c] with n >= 1, got shape {array.shape}")
    values = concrete(array)
    if values is None or not values.size:
        return array
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return array
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return np.clip(array, 0, 1) if isinstance(array, np.ndarray) else jnp.clip(array, 0, 1)
    if math.isnan(low + high):
        raise InputError(f"{name} must be finite, in [0, 1], got NaN")
    raise InputError(
        f"{name} must lie in [0, 1], got values from {low:.7g} to {high:.7g}, outside by "
        f"{max(-low, high - 1):.2g}; normalisation belongs inside the network"
    )


def as_layout(shape: Sequence[int], *, name: str = "images", axes: str = "[b, h, w, c]") -> None:
    """Refuses shapes of images that are not `[b, h, w, c]`.

    Args:
      shape: of the array of images.
      name: of the argument, for the message.
      axes: what the message calls them.

    Raises:
      InputError: for another rank, or an axis of channels in front of height and width.
    """
    if len(shape) != 4:
        raise InputError(f"{name} must be {axes}, got shape {tuple(shape)}")
    _, height, width, channels = shape
    few = height <= MOST_CHANNELS_FIRST < min(width, channels)
    if height == 1:
        few = few and channels * LONGEST_ASPECT > width
    if few or height < width == channels:
        raise InputError(
            f"{name} must be {axes}, channels last; shape {tuple(shape)} looks like "
            f"channels first: move them by {name}.transpose(0, 2, 3, 1)"
            + ("; a signal of this length is taken as [n, w, 1, c]" if height == 1 else "")
        )
