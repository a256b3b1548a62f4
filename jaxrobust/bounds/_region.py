"""The set of images that bounds hold on, and the least value of a linear function on it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._rule import Interval, rows_of
from jaxrobust.typing import Norm

TINY = 1e-30  # the least multiplier: radii near the smallest float would divide by 0
NEWTON_STEPS = 60  # of l_2's multiplier, at most; usually fewer than ten are taken


def spread(rows: Array, interval: Interval) -> Array:
    """The least value of each term of rows `[s, *shape]` on a box: the rows' are their sums."""
    centre = (interval.upper + interval.lower) / 2
    radius = (interval.upper - interval.lower) / 2
    return rows * rows_of(centre) - jnp.abs(rows) * rows_of(radius)


class Region(NamedTuple):
    """Images around one image.

    Attributes:
      hull: the smallest box that contains them, `[h, w, c]`.
      least: rows `[s, d]` of linear functions -> their least values `[s]`.
      is_box: whether they are the hull.
    """

    hull: Interval
    least: Callable[[Array], Array]
    is_box: bool


def box_region(lower: Array, upper: Array) -> Region:
    """All images between two.

    Args:
      lower: `[h, w, c]`.
      upper: `[h, w, c]`.
    """
    centre, radius = ((upper + lower) / 2).ravel(), ((upper - lower) / 2).ravel()

    def least(rows: Array) -> Array:
        return rows @ centre - jnp.abs(rows) @ radius

    return Region(Interval(lower, upper), least, True)


def ball_region(norm: Norm, image: Array, eps: Array, box: tuple[float, float] | None) -> Region:
    """The ball of a norm around an image, cut with a box of pixel values.

    Args:
      norm: "linf", "l2" or "l1".
      image: `[h, w, c]`.
      eps: `[]`.
      box: the least and the largest pixel value, or `None`.
    """
    eps = eps.astype(image.dtype)
    low, high = image - eps, image + eps
    if box is not None:
        low, high = jnp.maximum(low, box[0]), jnp.minimum(high, box[1])
    if norm == "linf":
        return box_region(low, high)
    x = image.ravel()
    fall = {"l2": _l2_fall, "l1": _l1_fall}[norm]

    def least(rows: Array) -> Array:
        rooms = None
        if box is not None:
            rooms = jnp.where(rows > 0, rows_of(x - box[0]), rows_of(box[1] - x))
        return rows @ x - fall(jnp.abs(rows), rooms, eps)

    return Region(Interval(low, high), least, False)


def _l1_fall(weights: Array, rooms: Array | None, eps: Array) -> Array:
    """The largest `w . m` with `0 <= m <= room` and sum m <= eps: the largest weights first."""
    if rooms is None:
        return eps * jnp.max(weights, -1)
    order = jnp.argsort(-jax.lax.stop_gradient(weights), -1)
    w, room = (jnp.take_along_axis(x, order, -1) for x in (weights, rooms))
    before = jnp.cumsum(room, -1) - room
    return jnp.sum(w * jnp.clip(eps - before, 0, room), -1)


def _l2_fall(weights: Array, rooms: Array | None, eps: Array) -> Array:
    """The largest `w . m` with `0 <= m <= room` and `|m|_2 <= eps`.

    Evaluated as the Lagrangian's dual, which is a valid bound at every multiplier.
    """
    squares = jnp.sum(weights**2, -1)
    norm = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0 * squares)
    if rooms is None:
        return eps * norm
    scale = jnp.maximum(_scale(*jax.lax.stop_gradient((weights, rooms, eps, norm))), TINY)
    m = jnp.minimum(weights * jnp.expand_dims(scale, -1), rooms)
    dual = jnp.sum(weights * m, -1) - (jnp.sum(m**2, -1) - eps**2) / (2 * scale)
    everything = jnp.sum(weights * rooms, -1)
    free = jnp.sum(jnp.where(weights > 0, rooms, 0) ** 2, -1) <= eps**2
    return jnp.where(free | ~(norm > 0), everything, jnp.where(eps > 0, dual, 0 * dual))


def _scale(weights: Array, rooms: Array, eps: Array, norm: Array) -> Array:
    """The t with `|min(w t, room)|_2 = eps`, from below; entries at their room are constants."""

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, scale, _ = state
        full = weights * jnp.expand_dims(scale, -1) >= rooms
        filled = jnp.sum(jnp.where(full, rooms, 0) ** 2, -1)
        rest = jnp.sum(jnp.where(full, 0, weights) ** 2, -1)
        open_ = (rest > 0) & (filled < eps**2)
        new = jnp.sqrt((eps**2 - jnp.where(open_, filled, 0)) / jnp.where(open_, rest, 1))
        new = jnp.where(open_, jnp.maximum(new, scale), scale)
        return count + 1, new, jnp.any(new > scale)

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        return state[2] & (state[0] < NEWTON_STEPS)

    positive = jnp.where(eps > 0, eps, 1)
    start = positive / jnp.where(norm > 0, norm, 1)
    state = (jnp.zeros((), jnp.int32), start, jnp.ones((), bool))
    return jax.lax.while_loop(unfinished, step, state)[1]
