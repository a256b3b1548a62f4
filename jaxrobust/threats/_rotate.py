"""Rotation and translation of one image by one bilinear pass."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError
from jaxrobust.precision import wide_type
from jaxrobust.threats._sample import PADDINGS, Padding, sample


def rotate_translate(
    image: ArrayLike, degrees: ArrayLike, shift_px: ArrayLike, *, padding: Padding = "zeros"
) -> Array:
    r"""Rotates an image about its centre, then moves it; each pixel is interpolated once.

    Output pixel (column j, row i) reads the input at (u, v), with a the angle, (t_x, t_y) the
    shift and (c_x, c_y) = ((w - 1) / 2, (h - 1) / 2) the centre:

    .. math::
        u = \cos a\, X - \sin a\, Y + c_x, \qquad v = \sin a\, X + \cos a\, Y + c_y, \qquad
        X = j - c_x - t_x, \quad Y = i - c_y - t_y

    Multiples of 90 degrees and whole pixels are exact: 90 equals `numpy.rot90(image)`, (0, 0, 0)
    returns the image bit for bit. Differentiable in all three arguments.

    Args:
      image: one image `[h, w, c]`, floating point; `jax.vmap` for a batch.
      degrees: angle `[]`, positive counter-clockwise as displayed (row 0 on top).
      shift_px: (right, down) in pixels, `[2]`.
      padding: what is beyond the border: "zeros" (black), "edge" (the border pixel goes on),
        "reflect" (mirrored about the centre of the border pixel) or "symmetric" (about its outer
        edge); the words of `numpy.pad`.

    Returns:
      The image `[h, w, c]`, in the type of `image`; computed in float32 or wider.

    Raises:
      ValueError: if `padding` is unknown, or `image` is not one image of floating point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
      >>> threats.rotate_translate(image, 90, (0, 0))[..., 0].tolist()
      [[2.0, 4.0], [1.0, 3.0]]
      >>> threats.rotate_translate(image, 0, (0.5, 0))[..., 0].tolist()
      [[0.5, 1.5], [1.5, 3.5]]

    References:
      Engstrom et al., Exploring the Landscape of Spatial Robustness, 2019 (arXiv:1712.02779).
    """
    image = checked_image(image)
    if padding not in PADDINGS:
        raise InputError(
            f"padding must be one of {', '.join(map(repr, PADDINGS))}, not {padding!r}"
        )
    dtype = wide_type(image)
    height, width = image.shape[:2]
    shift = jnp.asarray(shift_px, dtype)
    cos, sin = cos_sin(jnp.asarray(degrees, dtype))
    centre = (width - 1) / 2, (height - 1) / 2
    x = (jnp.arange(width, dtype=dtype) - centre[0] - shift[0])[None, :]
    y = (jnp.arange(height, dtype=dtype) - centre[1] - shift[1])[:, None]
    u = (cos * x - sin * y + centre[0]).ravel()
    v = (sin * x + cos * y + centre[1]).ravel()
    out = sample(image.astype(dtype), u, v, padding=padding)
    return out.reshape(image.shape).astype(image.dtype)


def cos_sin(degrees: Array) -> tuple[Array, Array]:
    """Cosine and sine of degrees, exactly 0 and 1 where they should be."""
    quarters = jnp.round(degrees / 90)
    radians = (degrees - 90 * quarters) * np.asarray(np.pi / 180, degrees.dtype)
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    turn = jnp.mod(quarters, 4).astype(jnp.int32)
    return (
        jnp.select([turn == 0, turn == 1, turn == 2], [cos, -sin, -cos], sin),
        jnp.select([turn == 0, turn == 1, turn == 2], [sin, cos, -sin], -cos),
    )


def checked_image(image: ArrayLike) -> Array:
    """`image` as an array `[h, w, c]` of floating point numbers."""
    image = jnp.asarray(image)
    if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(
            "image must be one image [h, w, c], floating point in [0, 1] (jax.vmap for a batch), "
            f"got {image.dtype}{list(image.shape)}"
        )
    return image
