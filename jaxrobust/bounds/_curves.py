"""Smooth functions of one value: lines that touch the convex and the concave envelope.

The line below touches the convex envelope of f on the interval at its midpoint, the line above the
concave envelope. Where the line is a tangent through an end of the interval, its touching point is
found by bisection and taken from the side on which the line is valid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._lines import Lines, elementwise
from jaxrobust.bounds._rule import Free, Interval, Rule

TINY = 1e-6  # shorter intervals have no chord: its slope would be rounding alone
Line = tuple[Array, Array]  # slope, value at 0


class Curve(NamedTuple):
    """A function of one value, and its derivative.

    Attributes:
      f: the function.
      df: its derivative.
    """

    f: Callable[[Array], Array]
    df: Callable[[Array], Array]


def middle(interval: Interval) -> Array:
    """The midpoints."""
    return (interval.lower + interval.upper) / 2


def tangent(curve: Curve, touch: Array) -> Line:
    """The tangent at `touch`."""
    slope = curve.df(touch)
    return slope, curve.f(touch) - slope * touch


def chord(curve: Curve, interval: Interval, *, below: bool) -> Line:
    """The line through both ends; parallel to the tangent where the ends are too near."""
    (lo, hi), gap = interval, interval.upper - interval.lower
    tiny = gap < TINY
    slope = (curve.f(hi) - curve.f(lo)) / jnp.where(tiny, 1, gap)
    slope = jnp.where(tiny, curve.df(middle(interval)), slope)
    ends = curve.f(lo) - slope * lo, curve.f(hi) - slope * hi
    return slope, jnp.minimum(*ends) if below else jnp.maximum(*ends)


def chosen(mask: Array, yes: Line, no: Line) -> Line:
    """One line where `mask` holds, the other elsewhere."""
    return jnp.where(mask, yes[0], no[0]), jnp.where(mask, yes[1], no[1])


def gap_at(curve: Curve, touch: Array, end: Array) -> Array:
    """How far the tangent at `touch` is above the function at `end`."""
    return curve.f(touch) + curve.df(touch) * (end - touch) - curve.f(end)


def tangent_point(curve: Curve, inside: Array, outside: Array, end: Array, *, below: bool) -> Array:
    """The point between `inside` and `outside` whose tangent meets the function at `end`.

    Args:
      curve: the function.
      inside: where the tangent is valid at `end`: not above it (`below`), or not below it.
      outside: where it is not.
      end: `f` is met here.
      below: whether the tangent is a line below.

    Returns:
      The last point known to be valid; its derivative is that of the exact point.
    """
    stopped = jax.lax.stop_gradient((inside, outside, end))
    sign = 1 if below else -1

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        good, bad = ends
        half = (good + bad) / 2
        valid = sign * gap_at(curve, half, stopped[2]) <= 0
        return jnp.where(valid, half, good), jnp.where(valid, bad, half)

    steps = 40 if inside.dtype.itemsize == 4 else 60
    point, _ = jax.lax.fori_loop(0, steps, halve, stopped[:2])
    point = jax.lax.stop_gradient(point)
    # The implicit derivative: gap_at(point, end) = 0, so dpoint = (f'(end) - f'(point)) dend / ...
    bend = jax.grad(lambda x: jnp.sum(curve.df(x)))(point) * (stopped[2] - point)
    rate = (curve.df(stopped[2]) - curve.df(point)) / jnp.where(bend == 0, 1, bend)
    rate = jax.lax.stop_gradient(jnp.where(jnp.isfinite(rate) & (bend != 0), rate, 0))
    return point + rate * (end - jax.lax.stop_gradient(end))


def s_shaped(curve: Curve, *, shift: float) -> Rule:
    """The rule of a rising function, convex below 0, concave above, with f(-x) = shift - f(x)."""

    def lower_touch(interval: Interval) -> tuple[Array, Array]:
        """The largest point whose tangent is a line below, and where the chord is the line."""
        lo, hi = interval
        start = jnp.minimum(lo, 0)
        point = tangent_point(curve, start, jnp.zeros_like(lo), hi, below=True)
        above = (hi > 0) & (gap_at(curve, start, hi) > 0)
        return jnp.where(hi <= 0, hi, point), (lo >= 0) | above

    def line_below(interval: Interval, touch: Array | None) -> Line:
        last, straight = lower_touch(interval)
        touch = jnp.minimum(middle(interval), last) if touch is None else touch
        return chosen(straight, chord(curve, interval, below=True), tangent(curve, touch))

    def lines(interval: Interval, low: Array | None = None, high: Array | None = None) -> Lines:
        slope, offset = line_below(interval, low)
        mirrored = None if high is None else -high
        up, mirrored_offset = line_below(_mirrored(interval), mirrored)
        return Lines(slope, offset, up, shift - mirrored_offset)

    def free(interval: Interval) -> tuple[Free, Free]:
        low, high = _range(interval), _range(_mirrored(interval))
        return low, Free(-high.start, -high.high, -high.low)

    def _range(interval: Interval) -> Free:
        last, _ = lower_touch(interval)
        first = jnp.minimum(interval.lower, last)
        return Free(jnp.minimum(middle(interval), last), first, last)

    return elementwise(curve.f, lines, free=free)


def convex(curve: Curve, image: Any, touch: Callable[[Interval], Array] = middle) -> Rule:
    """The rule of a convex function: a tangent below, the chord above."""

    def lines(interval: Interval, at: Array | None = None) -> Lines:
        above = chord(curve, interval, below=False)
        return Lines(*tangent(curve, touch(interval) if at is None else at), *above)

    return elementwise(image, lines, free=lambda interval: (_anywhere(interval, touch),))


def concave(curve: Curve) -> Rule:
    """The rule of a rising concave function: the chord below, a tangent above."""

    def lines(interval: Interval, at: Array | None = None) -> Lines:
        below = chord(curve, interval, below=True)
        return Lines(*below, *tangent(curve, middle(interval) if at is None else at))

    return elementwise(curve.f, lines, free=lambda interval: (_anywhere(interval, middle),))


def _anywhere(interval: Interval, touch: Callable[[Interval], Array]) -> Free:
    """A touching point anywhere in the interval."""
    return Free(touch(interval), jnp.minimum(*interval), jnp.maximum(*interval))


def _mirrored(interval: Interval) -> Interval:
    return Interval(-interval.upper, -interval.lower)


def even_image(f: Callable[[Array], Array]) -> Callable[[Interval], Interval]:
    """Values of a function that falls to 0 at 0 and rises from there."""

    def image(interval: Interval) -> Interval:
        lo, hi = interval
        around = (lo <= 0) & (hi >= 0)
        least = jnp.minimum(f(lo), f(hi))
        return Interval(jnp.where(around, jnp.zeros_like(lo), least), jnp.maximum(f(lo), f(hi)))

    image.of_intervals = True  # type: ignore[attr-defined]
    return image


def _exp_touch(interval: Interval) -> Array:
    """Not so far up that the tangent falls below 0 within the interval."""
    return jnp.minimum(middle(interval), interval.lower + 0.99)


def _logistic_slope(x: Array) -> Array:
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


TANH = s_shaped(Curve(jnp.tanh, lambda x: 1 - jnp.tanh(x) ** 2), shift=0)
LOGISTIC = s_shaped(Curve(jax.nn.sigmoid, _logistic_slope), shift=1)
ERF = s_shaped(Curve(jax.lax.erf, lambda x: 2 / jnp.sqrt(jnp.pi) * jnp.exp(-(x**2))), shift=0)
EXP = convex(Curve(jnp.exp, jnp.exp), jnp.exp, _exp_touch)
SQUARE = convex(Curve(jnp.square, lambda x: 2 * x), even_image(jnp.square))
ABS = convex(Curve(jnp.abs, jnp.sign), even_image(jnp.abs))
LOG = concave(Curve(jnp.log, lambda x: 1 / x))
SQRT = concave(Curve(jnp.sqrt, lambda x: 0.5 / jnp.sqrt(x)))
