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
      InputError: for a masked array.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    _refuse_masked(value, name)
    return np.asarray(value)


def as_array(value: Any, *, name: str = "") -> Any:
    """NumPy and JAX arrays as they are; anything else as NumPy, or as JAX where it is traced.

    Args:
      value: an array, a number or a list of numbers.
      name: of the argument, for the message.

    Returns:
      The array.

    Raises:
      InputError: for a masked array.
    """
    _refuse_masked(value, name)
    if isinstance(value, jax.Array | np.ndarray):
        return value
    values = concrete(value)
    return jnp.asarray(value) if values is None else values


def _refuse_masked(value: Any, name: str = "") -> None:
    """JAX takes the numbers under a mask for numbers like all others."""
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"{name or 'an argument'} must be an array without a mask, got a masked array of shape "
            f"{value.shape}; leave examples out, or fill it: .filled(value)"
        )
