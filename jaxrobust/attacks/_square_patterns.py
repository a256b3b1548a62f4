"""Square's schedule of window sizes, the pattern in a window, and the tiles of its start."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

# A window covers the share p_init of the image up to and including iteration 10, half of that up
# to 50, a quarter up to 200 and so on; never rescaled to another number of queries.
LAST_OF_STAGE = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])


def stage_of(iteration: ArrayLike) -> Array:
    """The stage 0..9 of the 0-based iteration."""
    return jnp.sum(jnp.asarray(iteration) > jnp.asarray(LAST_OF_STAGE, jnp.int32))


def window_sides(height: int, width: int, *, norm: str, p_init: float = 0.8) -> np.ndarray:
    """The side of the square window in each stage, `[10]`."""
    shares = p_init / 2.0 ** np.arange(len(LAST_OF_STAGE) + 1)
    sides = np.rint(np.sqrt(shares * height * width)).astype(np.int32)
    sides = np.maximum(sides, 1) if norm == "linf" else np.maximum(sides, 3) // 2 * 2 + 1
    return np.minimum(sides, min(height, width))


class Profile(NamedTuple):
    """The pattern of one side, as vectors along its axes.

    Two pyramids, one positive and one negative, fill the halves of a square. A pyramid's height
    falls with the larger of the two distances from its middle, so it is the smaller of two vectors'
    entries: the pattern is `weight_i min(along_i, across_j)`. Shifting vectors is cheap, shifting a
    table is not. Values beyond the side are 0.
    """

    weight: np.ndarray  # `[s]`: the height of each half, signed
    along: np.ndarray  # `[s]`: the height by the distance across the halves
    across: np.ndarray  # `[s]`: the height by the distance along the seam


def profile(side: int, norm: str) -> Profile:
    """The pattern of a window of `side` pixels, of norm 1."""
    power = 4 if norm == "l1" else 2
    # Steps of 1/(q+1)^power at distance q: the height is what lies from d on.
    heights = np.cumsum((1.0 / np.arange(1, side // 2 + 2) ** power)[::-1])[::-1]
    index, seam = np.arange(side), side // 2
    upper = index < seam
    middle = np.where(upper, seam // 2, seam + (side - seam) // 2)
    along = heights[np.abs(index - middle)]
    across = heights[np.abs(index - side // 2)]
    weight = np.zeros(side)
    for half, sign in ((upper, 1), (~upper, -1)):
        if half.any():
            weight[half] = sign / _size(np.minimum(along[half][:, None], across[None]), norm)
    weight /= _size(weight[:, None] * np.minimum(along[:, None], across[None]), norm)
    return Profile(weight, along, across)


def pattern(side: int, norm: str) -> np.ndarray:
    """The same as a table `[side, side]`."""
    p = profile(side, norm)
    return p.weight[:, None] * np.minimum(p.along[:, None], p.across[None])


def _size(values: np.ndarray, norm: str) -> float:
    return float(np.abs(values).sum() if norm == "l1" else np.sqrt((values**2).sum()))


@functools.lru_cache(maxsize=64)
def profiles(sides: tuple[int, ...], norm: str) -> np.ndarray:
    """The profiles of several sides, `[len(sides), 3, largest side]`, padded with 0."""
    table = np.zeros((len(sides), 3, max(sides)))
    for row, side in zip(table, sides, strict=True):
        row[:, :side] = profile(side, norm)
    return table


def corners(draws: Array, side: Array, height: int, width: int) -> Array:
    """Uniform draws `[..., 2]` as the rows and columns of windows' first pixels.

    As in AutoAttack, the last position is never drawn, so the window never covers the last row and
    column.
    """
    free = jnp.stack([height - side, width - side]).astype(draws.dtype)
    free = free.reshape((1,) * (draws.ndim - 1) + (2,))
    return (draws * free).astype(jnp.int32)


def inside(corner: Array, side: Array, height: int, width: int) -> Array:
    """`[b, h, w, 1]` bool: the pixels of the windows with the corners `[b, 2]`."""
    row, col = corner[:, :1], corner[:, 1:]
    rows, cols = _index(height), _index(width)
    in_rows = (rows >= row) & (rows < row + side)
    in_cols = (cols >= col) & (cols < col + side)
    return in_rows[:, :, None, None] & in_cols[:, None, :, None]


def placed(vectors: Array, corner: Array, turned: Array, height: int, width: int) -> Array:
    """The pattern at the corners `[b, 2]`, `[b, h, w, 1]`; 0 outside of its window.

    Args:
      vectors: `[3, s]`, a profile padded with 0.
      corner: `[b, 2]`.
      turned: `[b]` bool; transpose the pattern.
      height: height of the image, in pixels.
      width: width of the image, in pixels.
    """
    by_row = _shifted(vectors, corner[:, 0], height)
    by_col = _shifted(vectors, corner[:, 1], width)
    weight, along, across = (v[:, :, None, None] for v in by_row)
    weight_turned, along_turned, across_turned = (v[:, None, :, None] for v in by_col)
    upright = weight * jnp.minimum(along, across_turned)
    lying = weight_turned * jnp.minimum(along_turned, across)
    return jnp.where(turned[:, None, None, None], lying, upright)


def _shifted(vectors: Array, start: Array, length: int) -> tuple[Array, ...]:
    """Each of the vectors `[n, s]` beginning at `start` `[b]`: `n` arrays `[b, length]`."""
    offset = _index(length) - start[:, None]
    hit = offset[:, :, None] == jnp.arange(vectors.shape[1], dtype=offset.dtype)[None, None]
    return tuple(jnp.sum(jnp.where(hit, vector[None, None], 0), -1) for vector in vectors)


def _index(length: int) -> Array:
    return jnp.arange(length, dtype=jnp.int32)[None]


class Tiling(NamedTuple):
    """The start of the l_2 and l_1 attacks: patterns side by side."""

    upright: np.ndarray  # `[h, w]`: the pattern repeated; 0 outside of the tiles
    lying: np.ndarray  # `[h, w]`: the transposed pattern repeated
    rows: np.ndarray  # `[h]`: the tile row of each pixel row
    cols: np.ndarray  # `[w]`


def tiling(height: int, width: int, norm: str) -> Tiling:
    """Tiles of a fifth of the height, counted from where five of them are centred.

    Heights that are not multiples of five have room for more than five tiles; tiles are clipped at
    the image. Images of less than five pixels get tiles of one pixel.
    """
    side = min(max(height // 5, 1), width)
    offset = max((height - 5 * side) // 2, 0)
    tile = pattern(side, norm)

    def axis(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = np.arange(length) - offset
        number = np.clip(position // side, 0, length // side - 1)
        return number, position % side, (position >= 0) & (position // side < length // side)

    (rows, y, in_rows), (cols, x, in_cols) = axis(height), axis(width)
    covered = in_rows[:, None] & in_cols[None]
    upright = np.where(covered, tile[y[:, None], x[None]], 0)
    lying = np.where(covered, tile.T[y[:, None], x[None]], 0)
    return Tiling(upright, lying, rows, cols)
