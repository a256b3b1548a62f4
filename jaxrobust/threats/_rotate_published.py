"""The forms in which the papers' code rotates and translates, kept for comparison."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError
from jaxrobust.threats._rotate import checked_image, cos_sin, rotate_translate
from jaxrobust.threats._sample import Padding


def rotate_translate_twice(
    image: ArrayLike,
    degrees: ArrayLike,
    shift_px: ArrayLike,
    *,
    padding: Padding = "zeros",
    pad: int = 16,
) -> Array:
    """Pads, rotates, translates in a second interpolation, crops: Engstrom et al.'s code.

    Interpolating twice blurs: the result differs from `rotate_translate` by up to 0.27. What
    leaves the padded canvas in the rotation is lost.

    Args:
      image: one image `[h, w, c]`, floating point.
      degrees: angle `[]`, positive counter-clockwise.
      shift_px: (right, down) in pixels, `[2]`.
      padding: how the canvas is filled around the image, "zeros", "edge", "reflect" or
        "symmetric"; beyond the canvas all is black.
      pad: width of the added border in pixels.

    Returns:
      The image `[h, w, c]`, in the type of `image`.

    Raises:
      ValueError: if `padding` is unknown, or "reflect" or "symmetric" and the image too small for
        `pad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> image = jnp.eye(2)[..., None]
      >>> threats.rotate_translate_twice(image, 0, (1, 0), pad=2)[..., 0].tolist()
      [[0.0, 1.0], [0.0, 0.0]]

    References:
      Engstrom et al., Exploring the Landscape of Spatial Robustness, 2019 (arXiv:1712.02779).
    """
    image = checked_image(image)
    shortest = min(image.shape[:2]) - (padding == "reflect")
    if padding in ("reflect", "symmetric") and pad > shortest:
        raise InputError(
            f"pad must be at most {shortest} for {padding!r} padding of an image of "
            f"{image.shape[0]} x {image.shape[1]} pixels, got {pad}"
        )
    modes = {"zeros": "constant", "edge": "edge", "reflect": "reflect", "symmetric": "symmetric"}
    if padding not in modes:
        raise InputError(f"padding must be one of {', '.join(map(repr, modes))}, not {padding!r}")
    height, width = image.shape[:2]
    canvas = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), modes[padding])
    canvas = rotate_translate(canvas, degrees, jnp.zeros(2, canvas.dtype), padding="zeros")
    canvas = rotate_translate(canvas, 0.0, shift_px, padding="zeros")
    return canvas[pad : pad + height, pad : pad + width]


def rotate_translate_nearest(image: ArrayLike, degrees: ArrayLike, shift_px: ArrayLike) -> Array:
    """Nearest pixel, black border: Pillow's rotation, then a shift by whole pixels.

    Kamath et al. trained on these transforms. Pillow's fixed-point arithmetic is followed, so
    that the same pixel is chosen where two are equally near. What the rotation moves out of the
    frame is lost, also if the shift would bring it back. The derivatives in angle and shift are 0.

    Args:
      image: one image `[h, w, c]`, any type; sides up to 32767.
      degrees: angle `[]`, positive counter-clockwise.
      shift_px: (right, down), rounded to whole pixels, `[2]`.

    Returns:
      The image `[h, w, c]`, in the type of `image`.

    Raises:
      ValueError: if `image` is not one image.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> image = jnp.array([[1, 2], [3, 4]], jnp.uint8)[..., None]
      >>> threats.rotate_translate_nearest(image, 90, (0.4, 1))[..., 0].tolist()
      [[0, 0], [2, 4]]

    References:
      Kamath et al., Can we have it all? On the Trade-off between Spatial and Adversarial
      Robustness of Neural Networks, 2020 (arXiv:2002.11318).
    """
    image = jnp.asarray(image)
    if image.ndim != 3:
        raise InputError(f"image must be one image [h, w, c], got shape {image.shape}")
    height, width = image.shape[:2]
    degrees, shift = (jnp.asarray(a, jnp.result_type(float)) for a in (degrees, shift_px))
    cos, sin = cos_sin(degrees)
    right, down = jnp.round(shift).astype(jnp.int32)
    # Pixels of the rotated image that end at each place of the output.
    j = jnp.arange(width, dtype=jnp.int32)[None, :] - right
    i = jnp.arange(height, dtype=jnp.int32)[:, None] - down
    column = _fixed_point(cos, -sin, width / 2, width / 2, height / 2, j, i)
    row = _fixed_point(sin, cos, height / 2, width / 2, height / 2, j, i)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside &= (j >= 0) & (j < width) & (i >= 0) & (i < height)
    found = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
    return jnp.where(inside[..., None], found, jnp.zeros((), image.dtype))


def _fixed_point(
    a: Array, b: Array, to: float, middle_x: float, middle_y: float, j: Array, i: Array
) -> Array:
    """The pixel index `floor(a (j + 1/2 - middle_x) + b (i + 1/2 - middle_y) + to)`, as Pillow."""

    def fixed(value: Array) -> Array:
        return jnp.floor(value * 65536 + 0.5).astype(jnp.int32)

    offset = to - a * middle_x - b * middle_y
    start = fixed(offset + a * 0.5 + b * 0.5)
    return (start + fixed(a) * j + fixed(b) * i) >> 16
