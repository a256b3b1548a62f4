"""What every data set checks of its images and labels, once."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxrobust.inputs import InputError, as_array, as_labels, as_layout

DARK = 4  # images that reach at most a fourth of their range are likely of another scale
MANY = 100  # fewer images may well be dark by chance


@contextlib.contextmanager
def named(what: object) -> Iterator[None]:
    """Errors of the body say of which data set or file they are."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{what}: {error}") from None


def as_examples(
    images: Any, labels: Any, *, prefix: str = "", classes: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images with their labels, as a data set holds them.

    Args:
      images: `[n, h, w, c]` uint8.
      labels: `[n]` integers of any width.
      prefix: of the arguments' names `images` and `labels`, for the message.
      classes: number of classes, if it is known.

    Returns:
      `[n, h, w, c]` uint8 and `[n]` int32, of NumPy.

    Raises:
      InputError: for another type, shape or layout, or labels that are no classes.
    """
    images = as_bytes(images, name=f"{prefix}images")
    return images, np.asarray(
        as_labels(labels, batch=len(images), classes=classes, name=f"{prefix}labels")
    )


def as_bytes(images: Any, *, name: str) -> np.ndarray:
    """Images as they are stored.

    Args:
      images: `[n, h, w, c]` uint8.
      name: of the argument, for the message.

    Returns:
      The array, of NumPy.

    Raises:
      InputError: for another type, shape or layout.
    """
    array = np.asarray(as_array(images, name=name))
    if array.dtype != np.uint8 or array.ndim != 4:
        raise InputError(
            f"{name} must be uint8 [n, h, w, c], got {array.dtype} {array.shape}{image_hint(array)}"
        )
    as_layout(array.shape, name=name)
    if len(array) and not array.size:
        raise InputError(f"{name} must have pixels, got shape {array.shape}")
    return array


def as_indices(indices: Any, *, size: int | None, name: str = "indices") -> np.ndarray:
    """Which examples of a set.

    Args:
      indices: `[n]` integers.
      size: number of examples of the set, if it is known.
      name: of the argument, for the message.

    Returns:
      The array, of NumPy.

    Raises:
      InputError: for another type or shape, or indices out of range.
    """
    array = np.asarray(indices)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not len(array)):
        raise InputError(f"{name} must be integers [n], got {array.dtype} {array.shape}")
    if len(array) and not (array.min() >= 0 and (size is None or array.max() < size)):
        upper = "at least 0" if size is None else f"in 0..{size - 1}"
        raise InputError(f"{name} must be {upper}, got values from {array.min()} to {array.max()}")
    return array.astype(np.int64)


def as_max_value(value: Any) -> int:
    """The uint8 value that means 1.0.

    Raises:
      InputError: if it is not an integer in 1..255.
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or not 1 <= value <= 255:
        raise InputError(f"max_value must be an integer in 1..255, got {value!r}")
    return int(value)


def as_class_names(names: Sequence[str], *, classes: int) -> tuple[str, ...]:
    """The names of all classes, or none.

    Args:
      names: in the order of the classes; empty where they are unknown.
      classes: number of classes.

    Returns:
      The names.

    Raises:
      InputError: if they are no words, or not one for each class.
    """
    words = (names,) if isinstance(names, str) else tuple(names)
    if not all(isinstance(word, str) for word in words) or len(words) not in (0, classes):
        raise InputError(
            f"class_names must be {classes} words, one for each class, or empty, got {names!r}"
        )
    return words


def check_scale(images: np.ndarray, max_value: int, *, name: str) -> None:
    """Refuses pixels above 1.0.

    Args:
      images: uint8.
      max_value: the uint8 value that means 1.0.
      name: of the images, for the message.

    Raises:
      InputError: if a pixel is above `max_value`.
    """
    brightest = int(images.max()) if images.size else 0
    if brightest > max_value:
        raise InputError(
            f"max_value, the uint8 value that means 1.0, must be at least {brightest}, the largest "
            f"of {name}, got {max_value}"
        )


def dark(images: np.ndarray, max_value: int, *, name: str) -> str:
    """What to say of images that are so dark that their scale is in doubt; all black ones are not.

    Args:
      images: uint8.
      max_value: the uint8 value that means 1.0.
      name: of the images, for the message.

    Returns:
      A sentence; empty if a pixel is above a fourth of `max_value`, or all are black.
    """
    brightest = int(images.max()) if images.size else 0
    if not 0 < brightest <= max_value // DARK:
        return ""
    return (
        f"{name} only reach {brightest}, but max_value, the uint8 value that means 1.0, is "
        f"{max_value}; give the right one, such as max_value={brightest}"
    )


def warn_of_dark(images: np.ndarray, max_value: int, *, name: str) -> None:
    """Warns of many images that are so dark that their scale is in doubt.

    Args:
      images: uint8.
      max_value: the uint8 value that means 1.0.
      name: of the images, for the message.
    """
    if len(images) >= MANY and (doubt := dark(images, max_value, name=name)):
        warnings.warn(doubt, stacklevel=2)


def image_hint(array: np.ndarray) -> str:
    """How images of a usual other form become uint8 `[n, h, w, c]`."""
    if array.dtype == np.uint8:
        return "; use images[..., None]" if array.ndim == 3 else ""
    if array.dtype == bool:
        return "; use images.astype(np.uint8) with max_value=1"
    if not array.size or not np.issubdtype(array.dtype, np.number):
        return ""
    if np.iscomplexobj(array) or not 0 <= array.min() <= array.max() <= 255:
        return "; scale them to 0..255 first"
    if np.issubdtype(array.dtype, np.integer):
        return "; use images.astype(np.uint8)"
    if array.max() <= 1:
        return "; use (255 * images).round().astype(np.uint8)"
    return "; use images.round().astype(np.uint8)"
