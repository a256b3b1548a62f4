"""What the door raises, and what it can see of a value."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class InputError(ValueError, AssertionError):
    """An argument of a wrong kind, shape or value; the message says which and what is right.

    A ValueError; also an AssertionError, because shapes used to be asserted by chex.
    """


def concrete(value: Any, *, name: str = "") -> np.ndarray | None:
    """The values as NumPy sees them, or None where they are not known yet.

    Args:
      value: an array, a number or a list of numbers.
      name: of the argument, for the message.

    Returns:
      `[...]`; None for tracers and for arrays whose parts are on other hosts.

    Raises:
      InputError: for a masked array, or lists of several lengths.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    _refuse_masked(value, name)
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(
            f"{name or 'an argument'} must be an array, got lists of several lengths: {value!r:.80}"
        ) from None


def as_array(value: Any, *, name: str = "") -> Any:
    """NumPy and JAX arrays as they are; anything else as NumPy, or as JAX where it is traced.

    NumPy arrays in the byte order of other machines, or of 80 bits, become ones that JAX can take.

    Args:
      value: an array, a number or a list of numbers.
      name: of the argument, for the message.

    Returns:
      The array.

    Raises:
      InputError: for a masked array, or lists of several lengths.
    """
    _refuse_masked(value, name)
    if isinstance(value, jax.Array):
        return value
    values = value if isinstance(value, np.ndarray) else concrete(value, name=name)
    return jnp.asarray(value) if values is None else _native(values)


def _native(array: np.ndarray) -> np.ndarray:
    """The array in types that JAX has: other machines' byte order and 80 bits are none."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _refuse_masked(value: Any, name: str = "") -> None:
    """JAX takes the numbers under a mask for numbers like all others."""
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{name or 'an argument'} must be an array without a mask, got a masked array of shape "
            f"{value.shape}; leave examples out, or fill it: .filled(value)"
        )
