"""3x3 convolutions by Winograd's minimal filtering: 16 multiplications where 36 would be needed.

Images are cut into overlapping 4x4 tiles. Tile and kernel are transformed, multiplied point by
point (over the channels: sixteen matrix products) and transformed back to 2x2 results. All
constants are 0, 1, -1 and 1/2. The rounding error is of a direct convolution's size, relative to
the largest number in the tile (Lavin and Gray, Fast Algorithms for Convolutional Neural Networks,
2016, section 4.1).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = Sequence[tuple[int, int]]

# Along one axis: four numbers of a tile, three of the kernel, two results. Both axes at once are
# Kronecker products; a tile's own points come as (pair, pair, first or second, first or second).
_TILE = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_RESULT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])
_OF_TILE = np.kron(_TILE, _TILE).reshape(16, 2, 2, 2, 2).swapaxes(2, 3).reshape(16, 16)
_OF_KERNEL = np.kron(_KERNEL, _KERNEL)
_TO_RESULT = np.kron(_RESULT, _RESULT)

# What pays, measured on two cores at 64 to 640 channels, 4 to 32 pixels and 1 to 128 images:
# products large enough to be worth the transforms, and maps small enough that the sixteen points
# of all tiles (12 MB) stay in a cache; where a batch is more than that, parts of it are taken.
_SMALLEST_PRODUCT = 2**23
_SURE_PRODUCT = 2**24
_GOOD_PLANE = 2**17
_LARGEST_PLANE = 3 * 2**16


def images_at_once(params: dict[str, Any], images: Any, kernel: Any, result: Any) -> int | None:
    """How many images to take at a time, a divisor of the batch; None where it does not pay.

    Args:
      params: of a `conv_general_dilated` equation.
      images: type of its left operand.
      kernel: type of its right operand.
      result: type of what it yields.

    Returns:
      The number, or None: not 3x3 with stride 1, not float32, a precision asked for, too small.
    """
    axes = params["dimension_numbers"]
    if len(params["window_strides"]) != 2 or not images.dtype == result.dtype == jnp.float32:
        return None
    if params["precision"] not in (None, (lax.Precision.DEFAULT,) * 2):
        return None
    once = (*params["window_strides"], *params["lhs_dilation"], *params["rhs_dilation"])
    if {*once, params["feature_group_count"], params["batch_group_count"]} != {1}:
        return None
    out, channels, *space = (kernel.shape[i] for i in axes.rhs_spec)
    within = all(0 <= side <= 2 for sides in params["padding"] for side in sides)
    if space != [3, 3] or not within:
        return None
    batch, height, width = (result.shape[axes.out_spec[i]] for i in (0, 2, 3))
    tiles = -(-height // 2) * -(-width // 2)
    for number in range(batch, 0, -1):
        plane = number * tiles * max(channels, out)
        if batch % number == 0 and plane <= _LARGEST_PLANE:
            product = number * tiles * channels * out
            pays = product >= _SMALLEST_PRODUCT and plane >= _GOOD_PLANE
            return number if pays or product >= _SURE_PRODUCT else None
    return None


def convolve(
    images: Array, kernel: Array, padding: Padding, at_once: int, *, turned: bool = False
) -> Array:
    """A 3x3 convolution with stride 1.

    Args:
      images: `[b, h, w, c]`.
      kernel: `[3, 3, c, o]`, or `[3, 3, o, c]` if it is to be turned.
      padding: zeros before and after rows and columns.
      at_once: images that are transformed together, a divisor of b; the rest waits in a loop.
      turned: turn the kernel by 180 degrees and swap its channels.

    Returns:
      `[b, h', w', o]`.
    """
    kernel = lax.rev(kernel, (0, 1)) if turned else kernel
    points = _times(_OF_KERNEL, kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])
    # A product swaps the channels for nothing. Swapping those of the kernel first took longer
    # than all products.
    dimensions = (((2,), (2 if turned else 1,)), ((0,), (0,)))

    def some(images: Array) -> Array:
        tiles, back = _cut(images, padding)
        return back(lax.dot_general(tiles, points, dimensions))

    batch = images.shape[0]
    if at_once == batch:
        return some(images)
    parts = lax.map(some, images.reshape(batch // at_once, at_once, *images.shape[1:]))
    return parts.reshape(batch, *parts.shape[2:])


def _cut(images: Array, padding: Padding) -> tuple[Array, Callable[[Array], Array]]:
    """Transformed tiles `[16, tiles, c]`, and what makes maps of the products with them."""
    n, *space, c = images.shape
    sizes = [size + sum(sides) - 2 for size, sides in zip(space, padding, strict=True)]
    rows, columns = (-(-size // 2) for size in sizes)
    # The last tile may reach over the edge.
    margins = [(low, high + size % 2, 0) for (low, high), size in zip(padding, sizes, strict=True)]
    images = lax.pad(images, lax.full((), 0, images.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    # Pairs of rows and of columns first; a tile is four such pairs, its own and the next ones.
    pairs = images.reshape(n, rows + 1, 2, columns + 1, 2, c).transpose(2, 4, 0, 1, 3, 5)
    tiles = [pairs[:, :, :, i : i + rows, j : j + columns] for i in (0, 1) for j in (0, 1)]

    def back(products: Array) -> Array:
        o = products.shape[-1]
        maps = _times(_TO_RESULT, products.reshape(16, -1)).reshape(2, 2, n, rows, columns, o)
        maps = maps.transpose(2, 3, 0, 4, 1, 5).reshape(n, 2 * rows, 2 * columns, o)
        return maps[:, : sizes[0], : sizes[1]]

    return _times(_OF_TILE, jnp.stack(tiles).reshape(16, -1)).reshape(16, -1, c), back


def _times(matrix: np.ndarray, array: Array) -> Array:
    return lax.dot(matrix.astype(array.dtype), array)


def transposed(
    images: Array, kernel: Array, padding: Padding, at_once: int, *, result: Any
) -> Array:
    """The same convolution, written so that JAX's transposition of it runs `convolve`.

    Its transpose, the gradient of the images, is the convolution with the kernel turned. That one
    is written down, and this is its transpose: transposing twice gives back the sixteen products.

    Args:
      images: `[b, h, w, c]`.
      kernel: `[3, 3, c, o]`.
      padding: as for `convolve`.
      at_once: as for `convolve`.
      result: type of the result, `[b, h', w', o]`.

    Returns:
      `[b, h', w', o]`.
    """
    sides = [(2 - low, 2 - high) for low, high in padding]
    back = functools.partial(convolve, kernel=kernel, padding=sides, at_once=at_once, turned=True)
    return jax.linear_transpose(back, result)(images)[0]
