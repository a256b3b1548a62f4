"""Operations that are others in disguise: written in terms of those that have rules."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.bounds._rule import Known
from jaxrobust.inputs import concrete


def rewritten(
    name: str, params: dict[str, Any], operands: Sequence[Any]
) -> Callable[..., list[Array]] | list[Any] | None:
    """A function of the operands that computes the same, or the result if it is an operand.

    Args:
      name: of a primitive.
      params: of its equation.
      operands: `Known` values or numbers of variables.

    Returns:
      The function, the results, or `None` if the operation has rules of its own.
    """
    if name in ("max", "min"):
        return _unbounded(name, operands) or _min_of_two(name, operands)
    if name == "reduce_min":
        return lambda x: [-jnp.max(-x, params["axes"])]
    if name == "clamp":
        return _clamp
    if name == "split":
        sizes = itertools.accumulate(map(int, params["sizes"]), initial=0)
        pairs, axis = list(itertools.pairwise(sizes)), params["axis"]
        return lambda x: [jax.lax.slice_in_dim(x, a, b, axis=axis) for a, b in pairs]
    if name == "unstack":
        return lambda x: [jnp.take(x, i, params["axis"]) for i in range(x.shape[params["axis"]])]
    return None


def _unbounded(name: str, operands: Sequence[Any]) -> list[Any] | None:
    """The variable itself, for its maximum with minus infinity, or its minimum with infinity."""
    end = -np.inf if name == "max" else np.inf
    for x, bound in (operands, operands[::-1]):
        values = concrete(bound.value) if isinstance(bound, Known) else None
        if values is not None and np.all(values == end):
            return [x]
    return None


def _min_of_two(name: str, operands: Sequence[Any]) -> Callable[..., list[Array]] | None:
    two = not any(isinstance(x, Known) for x in operands)
    return (lambda x, y: [-jnp.maximum(-x, -y)]) if two and name == "min" else None


def _clamp(low: Array, value: Array, high: Array) -> list[Array]:
    def like(bound: Array) -> Array:
        return jnp.broadcast_to(jnp.asarray(bound), value.shape)

    return [jax.lax.min(jax.lax.max(value, like(low)), like(high))]
