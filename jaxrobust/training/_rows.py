"""Images as they lie in a device's memory: rows of bytes.

A step gathers its batch out of the whole training set. From `[n, h, w, c]` the TPU's compiler does
that after copying the set into another layout, in every step, padded to four times its size for
32 x 32 colour images. Rows whose length is a multiple of the 128 lanes stay where they are.
"""

import math

import numpy as np
from jax import Array

LANES = 128


def image_rows(images: np.ndarray) -> np.ndarray:
    """Images as rows whose length is a multiple of `LANES`; a view where nothing is to pad.

    Args:
      images: `[n, h, w, c]` uint8.

    Returns:
      `[n, r]` uint8, zeros after the first `h w c`.
    """
    rows = np.reshape(images, (len(images), -1))
    missing = -rows.shape[1] % LANES
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows


def images_of(rows: Array, image_shape: tuple[int, ...]) -> Array:
    """The images of `image_rows`.

    Args:
      rows: `[b, r]`.
      image_shape: `(h, w, c)`.

    Returns:
      `[b, h, w, c]`.
    """
    return rows[:, : math.prod(image_shape)].reshape(-1, *image_shape)
