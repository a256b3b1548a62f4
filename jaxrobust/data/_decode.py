"""Bytes of an image file as a uint8 array: what a viewer shows, or one error."""

import io
import math
from typing import Any

import numpy as np

from jaxrobust.inputs import InputError, as_count
from jaxrobust.reasons import first_line

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Pillow's modes that hold 8 bits per channel or fewer. It clips the others when it converts them.
EIGHT_BITS = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
)
# Modes of grey with 16 bits in each format; "I" has more, except in PGM and older Pillow's PNG.
DEEP_GREY = {
    "PNG": ("I;16", "I;16B", "I"),
    "PPM": ("I;16", "I;16B", "I"),
    "TIFF": ("I;16", "I;16B", "I;16L", "I;16N"),
}
# Pixels that a byte of a PNG or JPEG can stand for: deflate's 1,032 bytes of eight pixels each.
DENSEST = 8300
BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 262, 274, 339  # tags of TIFF, EXIF


def decode(
    encoded: bytes, *, where: str, channels: int, resize: tuple[int, int] | None
) -> np.ndarray:
    """The image `[h, w, c]` uint8 of a PNG, JPEG, ... file; of an animation the first frame.

    Args:
      encoded: the bytes of the file.
      where: what an error calls it.
      channels: 1, 3 or 4; the image is converted.
      resize: `(height, width)` to cover and crop to, or `None`.

    Returns:
      The pixels. 16-bit grey values `v` become `round(v * 255 / 65535)`, EXIF orientation is
      applied, and transparent pixels are composited on black unless `channels` is 4.

    Raises:
      InputError: in one line, if the bytes are no image, or one that 8 bits cannot hold.
    """
    # Imported here: only sets of encoded images need it.
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.format in ("PNG", "JPEG") and math.prod(image.size) > DENSEST * len(encoded):
                raise ValueError(f"{image.size} pixels do not fit into {len(encoded)} bytes")
            image.load()
            mode, format_, turned = image.mode, image.format, _orientation(image)
            eight = _eight_bits(image)
            converted = None if eight is None else _converted(eight, channels)
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its message names the buffer, not the file
        raise InputError(
            f"{where} is no readable image: damaged, or of an unknown format"
        ) from None
    except Exception as error:  # whatever the decoder of a damaged file raises
        raise InputError(f"{where} is no readable image: {first_line(error)}") from error
    if converted is None:
        raise InputError(
            f"{where} must be an image with 8 bits per channel or 16-bit grey, got {format_} of "
            f"mode {mode!r}; convert it to 8 bits first"
        )
    if turned is not None:
        converted = converted.transpose(turned)
    if resize is not None:
        converted = covering(converted, resize)
    pixels = np.asarray(converted)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def size_of(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """`(height, width)` from an option that may be one number.

    Args:
      resize: pixels of both sides, `(height, width)`, or `None`.

    Returns:
      `(height, width)` or `None`.

    Raises:
      InputError: if it is neither, or a side is not positive.
    """
    if resize is None:
        return None
    sides = tuple(resize) if isinstance(resize, tuple | list) else (resize, resize)
    try:
        height, width = (as_count(side, name="resize") for side in sides)
    except ValueError:
        raise InputError(
            f"resize must be a number of pixels or (height, width), got {resize!r}"
        ) from None
    return height, width


def covering(image: Any, size: tuple[int, int]) -> Any:
    """An image scaled, with its proportions, to cover a size, and its centre of that size.

    For a square size these are torchvision's `Resize` and `CenterCrop`, bit for bit.

    Args:
      image: of Pillow.
      size: `(height, width)`.

    Returns:
      An image of Pillow of that size (bilinear, antialiased).
    """
    from PIL import Image

    height, width = size
    if image.size == (width, height):
        return image
    # In integers: a product with a rounded scale could be one pixel short of the size.
    if width * image.height >= height * image.width:
        scaled = width, max(height, width * image.height // image.width)
    else:
        scaled = max(width, height * image.width // image.height), height
    large = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    return large.crop((left, top, left + width, top + height))


def _eight_bits(image: Any) -> Any:
    """The image with 8 bits per channel, or None where that would lose more than depth."""
    from PIL import Image

    tags = getattr(image, "tag_v2", {})
    if SAMPLE_FORMAT in tags and set(np.ravel(tags[SAMPLE_FORMAT]).tolist()) != {1}:
        return None  # signed or floating-point samples, whose 0 is no black
    if image.mode in EIGHT_BITS:
        key = image.info.get("transparency")
        # The transparent colour of a 48-bit PNG, whose pixels Pillow has cut to 8 bits.
        return None if isinstance(key, tuple) and max(key) > 255 else image
    if image.mode not in DEEP_GREY.get(image.format, ()):
        return None
    values = np.asarray(image).astype(np.int64)
    top = 2 ** np.ravel(tags.get(BITS_PER_SAMPLE, 16))[0] - 1
    if values.min() < 0 or values.max() > top:
        return None
    grey = values if tags.get(PHOTOMETRIC, 1) else top - values  # 0: white is zero
    grey = ((grey * 255 + top // 2) // top).astype(np.uint8)
    if "transparency" not in image.info:
        return Image.fromarray(grey)
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey, grey, alpha], -1))


def _converted(image: Any, channels: int) -> Any:
    """Grey, RGB or RGBA; without a channel for it, transparency is composited on black."""
    from PIL import Image

    see_through = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if see_through:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow has no direct way
        image = image.convert("RGBA")
        if channels != 4:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image).convert("RGB")
    elif image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    mode = MODES[channels]
    return image if image.mode == mode else image.convert(mode)  # to the same mode it copies


def _orientation(image: Any) -> Any:
    """How the image must be turned to be upright, or None."""
    from PIL.Image import Transpose

    if image.format == "TIFF":  # Pillow has turned it while loading; older releases keep the tag
        return None
    try:
        number = image.getexif().get(ORIENTATION)
    except Exception:  # damaged metadata of an image that can be read: viewers show it as it is
        return None
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(number)
