"""ReLU and its relatives: `max` and `min` with a constant, leaky ReLU."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._lines import Lines, pull_lines
from jaxrobust.bounds._rule import Free, Interval, Known, Node, Pull, Rule

NARROW = 1e-8  # keeps the upper slope's denominator above 0


def relu_lines(interval: Interval, slope: Array | None = None) -> Lines:
    """Lines of max(x, 0): the chord above; below a line through 0.

    Args:
      interval: of x.
      slope: of the line below where the sign of x is open; default: 1 where the interval reaches
        farther up than down, else 0, without a derivative.

    Returns:
      The lines; both are the function itself where the sign of x is known.
    """
    low = jnp.minimum(interval.lower, 0)
    high = jnp.maximum(jnp.maximum(interval.upper, 0), low + NARROW)
    upper = high / (high - low)
    lower = jax.lax.stop_gradient((upper > 0.5).astype(upper.dtype) + 0 * upper)  # NaN stays NaN
    if slope is not None:
        lower = jnp.where(_open(interval), slope, lower)
    return Lines(lower, jnp.zeros_like(lower), upper, -low * upper)


def _open(interval: Interval) -> Array:
    """Where the sign is open."""
    return (interval.lower < 0) & (interval.upper > 0)


def _slope(interval: Interval) -> tuple[Free, ...]:
    start = relu_lines(interval).lower_slope
    return (Free(start, jnp.zeros_like(start), jnp.ones_like(start)),)


def _larger(node: Node, interval: Interval) -> Interval:
    """`max(x, c)` or `min(x, c)` of the ends."""
    return Interval(node.apply(interval.lower), node.apply(interval.upper))


def _constant(node: Node) -> Array:
    (constant,) = (x.value for x in node.operands if isinstance(x, Known))
    return jnp.asarray(constant)


def _shifted(node: Node, interval: Interval) -> Interval:
    """Of x - c."""
    c = _constant(node)
    return Interval(interval.lower - c, interval.upper - c)


def _max_relax(node: Node, intervals: Sequence[Interval], free: Any) -> Pull:
    """max(x, c) = relu(x - c) + c."""
    c, inside = _constant(node), _shifted(node, *intervals)
    low, low_at, high, high_at = relu_lines(inside, *(free or ()))
    return pull_lines(Lines(low, low_at + c * (1 - low), high, high_at + c * (1 - high)))


def _max_free(node: Node, intervals: Sequence[Interval]) -> tuple[Free, ...]:
    return _slope(_shifted(node, *intervals))


def _min_relax(node: Node, intervals: Sequence[Interval], free: Any) -> Pull:
    """min(x, c) = c - relu(c - x): the lines change places."""
    c, inside = _constant(node), _mirrored(_shifted(node, *intervals))
    low, low_at, high, high_at = relu_lines(inside, *(free or ()))
    return pull_lines(Lines(high, c * (1 - high) - high_at, low, c * (1 - low) - low_at))


def _min_free(node: Node, intervals: Sequence[Interval]) -> tuple[Free, ...]:
    return _slope(_mirrored(_shifted(node, *intervals)))


def _mirrored(interval: Interval) -> Interval:
    return Interval(-interval.upper, -interval.lower)


MAX_WITH_CONSTANT = Rule(interval=_larger, relax=_max_relax, free=_max_free, elementwise=True)
MIN_WITH_CONSTANT = Rule(interval=_larger, relax=_min_relax, free=_min_free, elementwise=True)


def leaky(below: Array) -> Rule:
    """The rule of leaky ReLU, whose slope is `below`, in [0, 1], for negative values.

    It is `below * x + (1 - below) * relu(x)`, and so are its lines.
    """

    def interval(node: Node, interval: Interval) -> Interval:
        lower, upper = (jnp.where(x < 0, below * x, x) for x in interval)
        return Interval(lower, upper)

    def relax(node: Node, intervals: Sequence[Interval], free: Any) -> Pull:
        low, low_at, high, high_at = relu_lines(intervals[0], *(free or ()))
        share = 1 - below
        return pull_lines(
            Lines(below + share * low, share * low_at, below + share * high, share * high_at)
        )

    def parameters(node: Node, intervals: Sequence[Interval]) -> tuple[Free, ...]:
        return _slope(*intervals)

    return Rule(interval=interval, relax=relax, free=parameters, elementwise=True)
