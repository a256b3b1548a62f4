"""Half precision: verbs compute in float32, and what they return is rounded into the set."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

Verb = TypeVar("Verb", bound=Callable[..., Any])


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
