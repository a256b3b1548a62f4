"""Radii, step sizes, counts and other numbers."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.inputs._error import InputError, as_array, concrete
from jaxrobust.inputs._shapes import common_shape

LARGEST_SEED = 2**32 - 1


def as_radius(
    value: Any,
    *,
    name: str = "eps",
    batch: int | None = None,
    largest: float = math.inf,
    infinite: bool = False,
    unit: str = " (image units, images in [0, 1])",
) -> Any:
    """A radius, or another number of a threat: at least 0 and finite, one for all or one each.

    Args:
      value: `[]` or `[b]`; may be traced.
      name: of the argument, for the message.
      batch: number of images `b`, if it is known.
      largest: the largest that makes sense.
      infinite: whether it may be infinite.
      unit: for the message.

    Returns:
      A float array, `[]` or `[b]`.

    Raises:
      InputError: for another shape, or a value out of range.
    """
    array = as_array(value, name=name)
    if array.ndim > 1 or (array.ndim == 1 and batch not in (None, len(array))):
        here = "" if batch is None else f", here [{batch}]"
        raise InputError(
            f"{name} must be one number or one per example [b]{here}, got shape {array.shape}"
        )
    upper = f" and at most {largest:g}" if math.isfinite(largest) else ""
    finite = "" if infinite or upper else " and finite"
    number = "" if infinite else "one number or one per example, "
    wanted = f"{name} must be {number}at least 0{upper}{finite}{unit};"
    check_number(array, wanted, low=0, high=largest, infinite=infinite)
    return jnp.asarray(array, jnp.result_type(float))


def as_step_size(value: Any, *, batch: int, name: str = "step_size") -> Any:
    """A step size, or a tree of them for composed threats: finite and at least 0.

    Args:
      value: numbers, or arrays `[b]`; may be traced.
      batch: number of images `b`.
      name: of the argument, for the message.

    Returns:
      `value` as it is; a list as an array.

    Raises:
      InputError: for another shape, or a value that is negative, not finite or no number.
    """
    if isinstance(value, list):  # of numbers, one per example; parts of a threat are a tuple
        value = as_array(value, name=name)
    for leaf in jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None):
        shape = as_array(leaf, name=name).shape
        if shape not in ((), (batch,)):
            raise InputError(
                f"{name} must be one number or one per example, here [{batch}], got shape {shape}"
            )
        check_number(leaf, f"{name} must be finite and at least 0,", low=0)
    return value


def as_number(
    value: Any,
    *,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    infinite: bool = False,
    positive: bool = False,
    lead: tuple[int, ...] | None = None,
) -> Any:
    """A hyper-parameter in its range: a number or an array, which may be traced.

    Args:
      value: the number.
      name: of the argument, for the message.
      low: the least value.
      high: the largest value.
      infinite: whether it may be infinite.
      positive: whether `low` itself is excluded.
      lead: the axes of what it is combined with, one number for each or one for all; `()` for one
        number, `None` for any shape.

    Returns:
      `value` as it is.

    Raises:
      InputError: for a value out of range, NaN, no number, or another shape than `lead`.
    """
    bound = f"above {low:g}" if positive else f"at least {low:g}"
    if math.isfinite(low) and math.isfinite(high):
        start = "(" if positive else "["
        wanted = f"in {start}{low:g}, {high:g}]"
    elif math.isfinite(low):
        wanted = bound + ("" if infinite else " and finite")
    else:
        wanted = "a number" if infinite else "a finite number"
    least = np.nextafter(low, math.inf) if positive else low
    check_number(value, f"{name} must be {wanted},", low=least, high=high, infinite=infinite)
    if lead is not None and common_shape(lead, np.shape(value)) != lead:
        each = f", or one for each of {lead}" if lead else ""
        raise InputError(f"{name} must be one number{each}, got shape {np.shape(value)}")
    return value


def as_per_example(
    value: Any,
    *,
    name: str,
    batch: int,
    low: float = -math.inf,
    high: float = math.inf,
    positive: bool = False,
) -> Any:
    """A hyper-parameter in its range, one for all examples or one each.

    Args:
      value: `[]` or `[b]`; may be traced.
      name: of the argument, for the message.
      batch: number of images `b`.
      low: the least value.
      high: the largest value.
      positive: whether `low` itself is excluded.

    Returns:
      `value` as an array of its own kind.

    Raises:
      InputError: for another shape, a value out of range, NaN, or no number.
    """
    as_number(value, name=name, low=low, high=high, positive=positive)
    array = as_array(value, name=name)
    if array.shape not in ((), (batch,)):
        raise InputError(
            f"{name} must be one number or one per example, here [{batch}], got shape {array.shape}"
        )
    return array


def check_number(
    value: Any, wanted: str, *, low: float, high: float = math.inf, infinite: bool = False
) -> None:
    """Refuses what is no number in [low, high].

    Args:
      value: a number or an array; the values of tracers cannot be looked at and pass.
      wanted: the message up to the value.
      low: the least value.
      high: the largest value.
      infinite: whether it may be infinite.

    Raises:
      InputError: with `wanted` and the value.
    """
    values = concrete(value, name=wanted.split()[0])
    if values is None:
        dtype = jnp.result_type(value)
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise InputError(f"{wanted} got {dtype}")
        return
    is_real = jnp.issubdtype(values.dtype, jnp.floating) or np.issubdtype(values.dtype, np.integer)
    if is_real:
        numbers = values.astype(np.float64)
        inside = (numbers >= low) & (numbers <= high) & (infinite | np.isfinite(numbers))
        if np.all(inside):
            return
        worst = numbers[~inside].ravel()[0] if numbers.ndim else numbers
        raise InputError(f"{wanted} got {worst:g}")
    raise InputError(f"{wanted} got {value!r}")


def as_count(value: Any, *, name: str, least: int = 1, most: int | None = None) -> int:
    """A static number of steps, queries, restarts or the like.

    Args:
      value: an integer.
      name: of the argument, for the message.
      least: the smallest that makes sense.
      most: the largest that makes sense; default: none.

    Returns:
      The integer.

    Raises:
      InputError: for anything else; a traced value cannot be static.
    """
    try:
        number = None if isinstance(value, bool | np.bool_ | jax.Array) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        wanted = f"of at least {least}" if most is None else f"between {least} and {most}"
        raise InputError(f"{name} must be an integer {wanted}, got {value!r}")
    return number


def as_seed(value: Any, *, name: str = "seed") -> int:
    """A seed of random draws: 32 bits, because JAX's keys ignore all others.

    Args:
      value: an integer.
      name: of the argument, for the message.

    Returns:
      The integer.

    Raises:
      InputError: for anything but an integer in 0..2^32 - 1.
    """
    return as_count(value, name=name, least=0, most=LARGEST_SEED)


def as_flag(value: Any, *, name: str) -> bool:
    """True or False; a word such as "no" would be true.

    Args:
      value: the flag.
      name: of the argument, for the message.

    Returns:
      `value`.

    Raises:
      InputError: for anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {value!r:.80}")
    return bool(value)


def as_choice(value: Any, *, name: str, choices: Sequence[str]) -> Any:
    """A word out of several.

    Args:
      value: the word.
      name: of the argument, for the message.
      choices: the words.

    Returns:
      `value`.

    Raises:
      InputError: for any other word.
    """
    if value not in choices:
        *some, last = map(repr, choices)
        words = f"{', '.join(some)} or {last}" if some else last
        raise InputError(f"{name} must be {words}, got {value!r}")
    return value
