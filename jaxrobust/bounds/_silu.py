"""SiLU, x times logistic of x, as one function: convex between its inflections, concave outside."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._curves import (
    Curve,
    Line,
    chord,
    chosen,
    gap_at,
    middle,
    tangent,
    tangent_point,
)
from jaxrobust.bounds._lines import Lines, elementwise
from jaxrobust.bounds._rule import Free, Interval

INFLECTION = 2.399357280520545
LOWEST_AT = -1.2784645427610738
LOWEST = -0.2784645427610738


def _slope(x: Array) -> Array:
    share = jax.nn.sigmoid(x)
    return share * (1 + x * (1 - share))


CURVE = Curve(lambda x: x * jax.nn.sigmoid(x), _slope)


def image(interval: Interval) -> Interval:
    """Values of SiLU: the smallest is inside of the interval, the largest at an end."""
    (lo, hi), (at_l, at_u) = interval, map(CURVE.f, interval)
    inside = (lo <= LOWEST_AT) & (hi >= LOWEST_AT)
    least = jnp.where(inside, jnp.full_like(lo, LOWEST), jnp.minimum(at_l, at_u))
    return Interval(least, jnp.maximum(at_l, at_u))


image.of_intervals = True  # type: ignore[attr-defined]


class _Touch(NamedTuple):
    """Where a line may touch: any point of a range gives a valid one; the chord where none does.

    Attributes:
      low: the least point.
      high: the largest.
      chord: where the chord is the line.
    """

    low: Array
    high: Array
    chord: Array


def lines(interval: Interval, low: Array | None = None, high: Array | None = None) -> Lines:
    """The lines that touch the envelopes at the midpoint, or at given points."""
    below = _line(interval, _below(interval), low, below=True)
    return Lines(*below, *_line(interval, _above(interval), high, below=False))


def free(interval: Interval) -> tuple[Free, Free]:
    """The two touching points."""
    ranges = _below(interval), _above(interval)
    low, high = (Free(_nearest(interval, r), jnp.minimum(r.low, r.high), r.high) for r in ranges)
    return low, high


def _nearest(interval: Interval, touch: _Touch) -> Array:
    """The midpoint, or the end of the range that is nearest to it."""
    return jnp.maximum(jnp.minimum(middle(interval), touch.high), touch.low)


def _line(interval: Interval, touch: _Touch, at: Array | None, *, below: bool) -> Line:
    at = _nearest(interval, touch) if at is None else at
    return chosen(touch.chord, chord(CURVE, interval, below=below), tangent(CURVE, at))


def _below(interval: Interval) -> _Touch:
    """The convex middle, as far as tangents there stay below both ends."""
    lo, hi = interval
    left, right = jnp.full_like(lo, -INFLECTION), jnp.full_like(lo, INFLECTION)
    last, first = jnp.minimum(hi, right), jnp.maximum(lo, left)
    # From an end in a concave part: the tangent point nearest to it.
    from_left = tangent_point(CURVE, last, left, lo, below=True)
    from_right = tangent_point(CURVE, first, right, hi, below=True)
    low, high = jnp.where(lo < left, from_left, lo), jnp.where(hi > right, from_right, hi)
    none = (lo < left) & (gap_at(CURVE, last, lo) > 0) | (hi > right) & (
        gap_at(CURVE, first, hi) > 0
    )
    crossed = (lo < left) & (hi > right) & (low > high)
    return _Touch(low, high, none | crossed | (lo >= right) | (hi <= left))


def _above(interval: Interval) -> _Touch:
    """One of the concave parts, as far as tangents there stay above the other end."""
    lo, hi = interval
    left, right = jnp.full_like(lo, -INFLECTION), jnp.full_like(lo, INFLECTION)
    in_right = (hi >= right) & (gap_at(CURVE, hi, lo) >= 0)
    in_left = (lo <= left) & (gap_at(CURVE, lo, hi) >= 0)
    first = tangent_point(CURVE, hi, jnp.maximum(right, lo), lo, below=False)
    last = tangent_point(CURVE, lo, jnp.minimum(left, hi), hi, below=False)
    first, last = jnp.where(lo >= right, lo, first), jnp.where(hi <= left, hi, last)
    low, high = jnp.where(in_right, first, lo), jnp.where(in_right, hi, last)
    return _Touch(low, high, ~(in_right | in_left))


SILU = elementwise(image, lines, free=free)
