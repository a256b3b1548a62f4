"""Square's proposals as pure functions of explicit draws, and the draws from keys."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._square_patterns import (
    corners,
    inside,
    placed,
    profiles,
    stage_of,
    tiling,
    window_sides,
)
from jaxrobust.keys import fold_keys
from jaxrobust.precision import rounded_inward
from jaxrobust.threats import l1_box_correction


class Draws(NamedTuple):
    """The randomness of one query, uniform in [0, 1)."""

    corners: Array  # `[b, 2, 2]`: row and column of the changed and of the drained window
    turned: Array  # `[b]`: above a half the pattern is transposed
    signs: Array  # `[b, c]`: below a half is -1


class StartDraws(NamedTuple):
    """The randomness of the start, uniform in [0, 1)."""

    turned: Array  # `[b, tile rows, tile columns]`; none for l_inf
    signs: Array  # l_inf: `[b, 1, w, c]`; else `[b, tile rows, tile columns, c]`


def draw(keys: Array, iteration: ArrayLike, channels: int) -> Draws:
    """The draws of the 0-based iteration; they depend on an example's key and the number alone."""
    numbers = _uniform(fold_keys(keys, jnp.asarray(iteration) + 1), (5 + channels,))
    return Draws(numbers[:, :4].reshape(-1, 2, 2), numbers[:, 4], numbers[:, 5:])


def draw_start(keys: Array, images: Array, norm: str) -> StartDraws:
    """The draws of the start of a run."""
    keys = fold_keys(keys, 0)
    _, height, width, channels = images.shape
    if norm == "linf":
        return StartDraws(jnp.zeros((0,)), _uniform(keys, (1, width, channels)))
    tiles = tiling(height, width, norm)
    numbers = _uniform(keys, (tiles.rows.max() + 1, tiles.cols.max() + 1, 1 + channels))
    return StartDraws(numbers[..., 0], numbers[..., 1:])


def start(draws: StartDraws, images: Array, eps: Array, *, norm: str) -> Array:
    """The images of the first query: stripes (l_inf) or tiles (l_2, l_1) of radius `eps` `[b]`."""
    eps = eps[:, None, None, None]
    signs = _signs(draws.signs, images.dtype)
    if norm == "linf":
        return jnp.clip(images + eps * signs, 0, 1)
    tiles = tiling(images.shape[1], images.shape[2], norm)
    turned, signs = (a[:, tiles.rows][:, :, tiles.cols] for a in (draws.turned, signs))
    upright, lying = (jnp.asarray(a, images.dtype)[None] for a in (tiles.upright, tiles.lying))
    heights = jnp.where(turned > 0.5, lying, upright)
    return _onto_ball(heights[..., None] * signs, images, eps, norm)


def propose(
    draws: Draws,
    iteration: ArrayLike,
    best: Array,
    images: Array,
    eps: Array,
    *,
    norm: str,
    p_init: float = 0.8,
) -> Array:
    """The images to query next.

    Args:
      draws: the draws of this query.
      iteration: 0-based number of the query, `[]`; may be traced.
      best: `[b, h, w, c]`, the best images so far.
      images: `[b, h, w, c]`, the clean images.
      eps: `[b]`.
      norm: "linf", "l2" or "l1".
      p_init: the share of the image in the first windows.

    Returns:
      `[b, h, w, c]` in the ball and the box.
    """
    _, height, width, _ = images.shape
    sides = window_sides(height, width, norm=norm, p_init=p_init)
    stage = stage_of(iteration)
    side = jnp.asarray(sides)[stage]
    corner = corners(draws.corners, side, height, width)
    window = inside(corner[:, 0], side, height, width)
    signs = _signs(draws.signs, images.dtype)[:, None, None]
    eps = eps[:, None, None, None]
    if norm == "linf":
        return jnp.where(window, jnp.clip(images + eps * signs, 0, 1), best)
    vectors = jnp.asarray(profiles(tuple(sides.tolist()), norm), images.dtype)[stage]
    heights = placed(vectors, corner[:, 0], draws.turned > 0.5, height, width)
    drained = inside(corner[:, 1], side, height, width)
    changes = _moved(best - images, heights * signs, window, drained, eps, norm)
    return _onto_ball(changes, images, eps, norm)


def _moved(
    changes: Array, pattern: Array, window: Array, drained: Array, eps: Array, norm: str
) -> Array:
    """The changes with the norm of both windows, and the unused part of `eps`, in the first.

    The window gets the scaled sum of the pattern and its current content; each channel keeps its
    own norm.
    """
    channels = changes.shape[-1]

    def size(where: Array) -> Array:
        return _size(jnp.where(where, changes, 0), norm, (1, 2))

    held, total = size(window | drained), _size(changes, norm, (1, 2, 3))
    if norm == "l2":
        unused = jnp.maximum(eps * eps - total * total, 0) / channels
        budget = jnp.sqrt(unused + held * held)
    else:
        budget = jnp.maximum(eps - total, 0) + held * channels
    new = pattern + jnp.where(window, changes / (1e-12 + size(window)), 0)
    new = new * (budget / (1e-12 + _size(new, norm, (1, 2))))
    return jnp.where(window, new, jnp.where(drained, 0, changes))


def _onto_ball(changes: Array, images: Array, eps: Array, norm: str) -> Array:
    """Images with changes of norm `eps`, less what the box clips; never outside by even one bit."""
    if norm == "l2":
        changes = changes * (eps / (1e-12 + _size(changes, norm, (1, 2, 3))))
    else:
        radius = eps * (1 - 1e-6)
        flat = (len(images), -1)  # reductions over one axis are many times faster on CPU
        corrections = jax.vmap(l1_box_correction)(
            changes.reshape(flat), images.reshape(flat), radius.ravel()
        )
        changes = changes + corrections.reshape(changes.shape)
        # What the sum's rounding left over; it is not small beside a small radius.
        total = _size(changes, norm, (1, 2, 3))
        changes = changes * jnp.where(total > radius, radius / jnp.where(total > 0, total, 1), 1)
    return jnp.clip(rounded_inward(images + changes, images, jnp.abs(changes)), 0, 1)


def _size(values: Array, norm: str, axes: tuple[int, ...]) -> Array:
    if norm == "l1":
        return jnp.sum(jnp.abs(values), axes, keepdims=True)
    return jnp.sqrt(jnp.sum(values * values, axes, keepdims=True))


def _signs(draws: Array, dtype: jnp.dtype) -> Array:
    return jnp.where(draws < 0.5, -1, 1).astype(dtype)


def _uniform(keys: Array, shape: tuple[int, ...]) -> Array:
    """Uniform numbers `[b, *shape]` in float32, whatever the images' precision."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, jnp.float32))(keys)
