"""What the interpreter knows of a value: its derivative even where the type has none."""

from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import Array

WIDTH = 0.1  # of a step that is made smooth, in units of what is compared


class Known(NamedTuple):
    """A value of a traced function.

    Attributes:
      value: as the function computes it.
      depends: whether the input has a part in it.
      soft: of integers and booleans, the same number in float32 with the derivative of the twin;
        `None` where there is none.
      scalar: the number that all its elements are, where the program itself says so.
      about: what it was made by: `Compared`, `Chosen` or `Coded`.
    """

    value: Any
    depends: bool
    soft: Any = None
    scalar: Any = None
    about: Any = None


class Compared(NamedTuple):
    """A boolean made by order comparisons with these numbers; `None` for one that is not known."""

    thresholds: tuple[Any, ...]


class Chosen(NamedTuple):
    """An index made by argmax: the probabilities of all choices, on the last axis."""

    shares: Array


class Coded(NamedTuple):
    """The one-hot code of an index by argmax: the probabilities of all choices."""

    shares: Array


def constant(value: Any, scalar: Any = None) -> Known:
    """A value that no input has a part in."""
    return Known(value, False, scalar=scalar)


def literal(atom: Any) -> Known:
    """A number that is written in the program."""
    number = np.shape(atom.val) == () and is_number(atom.val)
    return constant(atom.val, np.asarray(atom.val).item() if number else None)


def is_literal(atom: Any) -> bool:
    """Whether an operand is written in the program."""
    return isinstance(atom, jex.Literal)


def is_float(value: Any) -> bool:
    """Whether a type has derivatives."""
    return jnp.issubdtype(jax.typeof(value).dtype, jnp.inexact)


def is_number(value: Any) -> bool:
    """Whether a type is an integer, a boolean or a float; keys of generators are none."""
    dtype = jax.typeof(value).dtype
    return is_float(value) or jnp.issubdtype(dtype, jnp.integer) or dtype == jnp.bool_


def carry(value: Array, surrogate: Array) -> Array:
    """The value, with the derivative of the surrogate; where that is finite."""
    moved = surrogate - jax.lax.stop_gradient(surrogate)
    moved = jnp.where(jnp.isfinite(surrogate), moved, jnp.zeros_like(moved))
    return jax.lax.stop_gradient(value) + moved.astype(value.dtype)


def floated(known: Known) -> Array:
    """The value in floating point, with what it has of a derivative."""
    if is_float(known.value):
        return jnp.asarray(known.value)
    return jnp.asarray(known.value, jnp.float32) if known.soft is None else known.soft


def step(distance: Array) -> Array:
    """A smooth step from 0 to 1 over `WIDTH`, whose derivative vanishes nowhere."""
    return 0.5 + 0.5 * distance / (jnp.abs(distance) + WIDTH)


def bump(distance: Array) -> Array:
    """1 at distance 0 and less elsewhere, over a width of 1: what equality is for integers."""
    return 1 / (1 + jnp.square(distance))
