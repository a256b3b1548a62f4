"""The largest of several values: max-pooling, `max` over axes, `max` of two values."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.bounds._affine import ends
from jaxrobust.bounds._lines import signed_parts
from jaxrobust.bounds._rule import Interval, Node, Pull, Rule, rows_of


def _relax(node: Node, intervals: Sequence[Interval], free: Any) -> Pull:
    """Below the candidate with the largest lower bound; so above too, unless another may win."""

    def candidates(*values: Array) -> Array:
        return _candidates(node, values, 0)

    lower, upper = (_candidates(node, side, -np.inf) for side in zip(*intervals, strict=True))
    # `[n, *shape]`: 1 at the first candidate with the largest lower bound.
    best = jax.nn.one_hot(jnp.argmax(lower, 0), len(lower), axis=0, dtype=lower.dtype)
    rival = jnp.max(jnp.where(best > 0, jnp.full_like(upper, -np.inf), upper), 0)
    sure = jnp.max(lower, 0) >= rival
    largest = jnp.max(upper, 0)
    zeros = [jnp.zeros_like(interval.lower) for interval in intervals]
    _, transpose = jax.vjp(candidates, *zeros)

    def pull(rows: Array) -> tuple[tuple[Array, ...], Array]:
        below, above = signed_parts(rows)
        passed = below + jnp.where(rows_of(sure), above, jnp.zeros_like(above))
        flat = jnp.where(rows_of(sure), jnp.zeros_like(above), above * rows_of(largest))
        spread = jnp.expand_dims(passed, 1) * rows_of(best)
        return jax.vmap(transpose)(spread), flat

    return pull


def _candidates(node: Node, values: Sequence[Array], padding: float) -> Array:
    """What each entry of the result is the largest of, `[n, *node.shape]`."""
    if len(values) == 2:
        return jnp.stack(values)
    (value,) = values
    if "axes" in node.params:
        axes = node.params["axes"]
        first = jnp.moveaxis(value, axes, range(len(axes)))
        return first.reshape(-1, *node.shape)
    return _windows(node, value, padding)


def _windows(node: Node, value: Array, padding: float) -> Array:
    """A window's entries in order, on the leading axis."""
    names = ("window_dimensions", "window_strides", "window_dilation", "padding")
    sizes, strides, holes, margins = (node.params[name] for name in names)
    fill = jnp.asarray(padding, value.dtype)
    padded = jax.lax.pad(value, fill, [(low, high, 0) for low, high in margins])
    found = []
    for position in itertools.product(*map(range, sizes)):
        start = [p * hole for p, hole in zip(position, holes, strict=True)]
        travel = [(n - 1) * s + 1 for n, s in zip(node.shape, strides, strict=True)]
        stop = [a + b for a, b in zip(start, travel, strict=True)]
        found.append(jax.lax.slice(padded, start, stop, strides))
    return jnp.stack(found)


LARGEST = Rule(interval=ends, relax=_relax)


def pooled(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """Windows over an undilated value."""
    return LARGEST if all(d == 1 for d in params["base_dilation"]) else None
