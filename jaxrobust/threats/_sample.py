"""Bilinear sampling of one image at real coordinates, in two forms with the same values.

An image is thought of as continued beyond its border by its padding, on the whole lattice of
pixels. A coordinate has two neighbours on each axis, so a sample is a sum of two by two pixels.
"""

import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array

Padding = Literal["zeros", "edge", "reflect", "symmetric"]
PADDINGS = get_args(Padding)

# Up to this many pixels, TPUs sample by matrix products: they have no fast gather, but a product
# reads every pixel of two lines for each sample, which large images cannot afford.
_MATMUL_PIXELS = 64 * 64


class _Taps(NamedTuple):
    """Two neighbours on one axis for each sample: indices and weights, each `[2, n]`."""

    indices: Array
    weights: Array


def sample(image: Array, u: Array, v: Array, *, padding: Padding) -> Array:
    """The values `[n, c]` of `image` `[h, w, c]` at columns `u` and rows `v`, both `[n]`.

    Derivatives in `u` and `v` are the slopes between the neighbours. Exactly on a pixel, where
    the slope jumps, it is the mean of both sides: what a central difference sees.
    """
    return _sample(padding, image, u, v)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sample(padding: Padding, image: Array, u: Array, v: Array) -> Array:
    rows, columns = _values(v, image.shape[0], padding), _values(u, image.shape[1], padding)
    return _weighted(image, rows, columns)


@functools.partial(_sample.defjvp, symbolic_zeros=True)
def _sample_jvp(padding: Padding, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    image, u, v = primals
    rows, columns = _values(v, image.shape[0], padding), _values(u, image.shape[1], padding)
    out = _weighted(image, rows, columns)
    image_dot, u_dot, v_dot = tangents
    tangent = jnp.zeros_like(out)
    # Symbolic zeros, so that a search for the angle does not pay for the pixels' gradient.
    if not isinstance(image_dot, jax.custom_derivatives.SymbolicZero):
        tangent = tangent + _weighted(image_dot, rows, columns)
    if not isinstance(u_dot, jax.custom_derivatives.SymbolicZero):
        slope = _weighted(image, rows, _slopes(u, image.shape[1], padding))
        tangent = tangent + u_dot[:, None] * slope
    if not isinstance(v_dot, jax.custom_derivatives.SymbolicZero):
        slope = _weighted(image, _slopes(v, image.shape[0], padding), columns)
        tangent = tangent + v_dot[:, None] * slope
    return out, tangent


def _values(place: Array, size: int, padding: Padding) -> _Taps:
    """The neighbours of each place on an axis, weighted to interpolate."""
    low = jnp.floor(place)
    part = place - low
    return _continued(jnp.stack([low, low + 1]), jnp.stack([1 - part, part]), size, padding)


def _slopes(place: Array, size: int, padding: Padding) -> _Taps:
    """The nearest pixels strictly to both sides, weighted to a difference quotient."""
    low, high = jnp.ceil(place) - 1, jnp.floor(place) + 1
    inverse = 1 / (high - low)
    return _continued(jnp.stack([low, high]), jnp.stack([-inverse, inverse]), size, padding)


def _continued(lattice: Array, weight: Array, size: int, padding: Padding) -> _Taps:
    """Lattice points beyond the border, brought to the pixel that the padding puts there."""
    index = lattice.astype(jnp.int32)
    if padding == "zeros":
        weight = jnp.where((index >= 0) & (index < size), weight, 0)
    elif padding == "reflect":
        index = jnp.mod(index, max(2 * size - 2, 1))
        index = jnp.minimum(index, 2 * size - 2 - index)
    elif padding == "symmetric":
        index = jnp.mod(index, 2 * size)
        index = jnp.minimum(index, 2 * size - 1 - index)
    return _Taps(jnp.clip(index, 0, size - 1), weight)


def _weighted(image: Array, rows: _Taps, columns: _Taps) -> Array:
    """The sum over two by two taps: `[n, c]`."""
    if image.shape[0] * image.shape[1] > _MATMUL_PIXELS:
        return by_gather(image, rows, columns)
    return jax.lax.platform_dependent(image, rows, columns, tpu=by_matmul, default=by_gather)


def by_gather(image: Array, rows: _Taps, columns: _Taps) -> Array:
    """Four look-ups per sample."""
    width, channels = image.shape[1:]
    pixels, total = image.reshape(-1, channels), jnp.zeros((), image.dtype)
    for row in range(2):
        for column in range(2):
            place = rows.indices[row] * width + columns.indices[column]
            weight = rows.weights[row] * columns.weights[column]
            found = pixels.at[place].get(mode="promise_in_bounds")
            total = total + weight[:, None] * found
    return total


def by_matmul(image: Array, rows: _Taps, columns: _Taps) -> Array:
    """Weights of all columns times the image, then a weighted sum over rows; no gather."""

    def dense(taps: _Taps, size: int) -> Array:
        hit = taps.indices[..., None] == jnp.arange(size, dtype=jnp.int32)[None, None]
        return jnp.sum(jnp.where(hit, taps.weights[..., None], 0), 0)

    height, width = image.shape[:2]
    # Full precision: the default of TPUs rounds the pixels to bfloat16.
    of_columns = jnp.einsum("nw,hwc->nhc", dense(columns, width), image, precision="highest")
    return jnp.einsum("nh,nhc->nc", dense(rows, height), of_columns, precision="highest")
