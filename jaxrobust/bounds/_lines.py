"""Two lines around a function of one value, and how rows of linear bounds pass them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._rule import Free, Interval, Node, Pull, Rule, rows_of


class Lines(NamedTuple):
    """Lines below and above a function on an interval, elementwise.

    Attributes:
      lower_slope: of the line below.
      lower_offset: its value at 0.
      upper_slope: of the line above.
      upper_offset: its value at 0.
    """

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


def elementwise(
    image: Callable[..., Any],
    lines: Callable[..., Lines],
    *,
    free: Callable[[Interval], tuple[Free, ...]] | None = None,
) -> Rule:
    """The rule of a function of one value.

    Args:
      image: the function itself if it never falls, else `interval -> interval` of its values: it is
        called with an `Interval` if it has the attribute `of_intervals`.
      lines: `interval -> Lines`, elementwise, which bound the function on all of the interval;
        `(interval, *free) -> Lines` if there is `free`.
      free: `interval -> tuple of Free`, parameters of the lines that alpha-CROWN may optimise.

    Returns:
      The rule.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds
      >>> def lines(interval):  # of exp: a tangent below, the chord above
      ...     l, u = interval
      ...     slope = (jnp.exp(u) - jnp.exp(l)) / jnp.maximum(u - l, 1e-6)
      ...     return bounds.Lines(jnp.exp(l), jnp.exp(l) * (1 - l), slope, jnp.exp(u) - slope * u)
      >>> rule = bounds.elementwise(jnp.exp, lines)
    """

    def interval(node: Node, interval: Interval) -> Interval:
        if getattr(image, "of_intervals", False):
            return image(interval)
        return Interval(image(interval.lower), image(interval.upper))

    def relax(node: Node, intervals: Sequence[Interval], chosen: Any) -> Pull:
        return pull_lines(lines(*intervals, *(chosen or ())))

    def parameters(node: Node, intervals: Sequence[Interval]) -> tuple[Free, ...]:
        return free(*intervals) if free is not None else ()

    found = None if free is None else parameters
    return Rule(interval=interval, relax=relax, free=found, elementwise=True)


def pull_lines(lines: Lines) -> Pull:
    """Rows pass the line that is on their side: below where an entry is at least 0, else above.

    A tie at 0 belongs to the line below, with its derivative; `maximum` would split it.
    """

    def pull(rows: Array) -> tuple[tuple[Array], Array]:
        below, above = signed_parts(rows)
        low, low_at, high, high_at = (x if x.ndim == rows.ndim else rows_of(x) for x in lines)
        return (below * low + above * high,), below * low_at + above * high_at

    return pull


def signed_parts(rows: Array) -> tuple[Array, Array]:
    """The entries that are at least 0, and the others; zeros elsewhere. NaN is in the second."""
    below = rows >= 0
    zero = jnp.zeros_like(rows)
    return jnp.where(below, rows, zero), jnp.where(below, zero, rows)
