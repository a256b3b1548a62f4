"""A data set in one npz file."""

import pathlib

import numpy as np

from jaxrobust.data._dataset import Dataset
from jaxrobust.data._files import read_npz

IMAGE_KEYS = ("images", "image")
LABEL_KEYS = ("labels", "label")


def npz(
    path: str,
    *,
    num_classes: int | None = None,
    test_size: int = 0,
    max_value: int = 255,
    name: str | None = None,
) -> Dataset:
    """A data set in one npz file: `train_images`, `train_labels`, `test_images`, `test_labels`.

    The training part may also be called `images` and `labels` (or `image` and `label`). A file
    without a test part needs `test_size`.

    Args:
      path: the file; images are uint8 `[n, h, w, c]` or `[n, h, w]`, labels integers `[n]`.
      num_classes: default the largest label plus 1.
      test_size: training examples to hold out as the test set (at random, seed 0).
      max_value: the uint8 value that means 1.0.
      name: what results call the set; default the file's name without its ending.

    Returns:
      The data set.

    Raises:
      ValueError: in one line, if the file is missing or damaged, lacks an array, or its arrays do
        not fit together.

    Example:
      >>> import os, tempfile
      >>> import numpy as np
      >>> from jaxrobust import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "mine.npz")
      ...     np.savez(path, images=np.zeros((9, 8, 8, 3), np.uint8), labels=np.arange(9) % 3)
      ...     data.npz(path, test_size=3).train_images.shape
      (6, 8, 8, 3)
    """
    file = pathlib.Path(path).expanduser()
    arrays = read_npz(file)
    train = _part(file, arrays, "train_", required=True)
    test = _part(file, arrays, "test_", required=False)
    if test is None and not test_size:
        raise ValueError(
            f"{file} has no test_images and test_labels: give test_size, "
            "the number of training examples to test on"
        )
    images, labels = test if test is not None else (train[0][:0], train[1][:0])
    top = max((int(part.max()) for part in (train[1], labels) if len(part)), default=-1)
    dataset = Dataset(
        name=name or file.stem,
        train_images=train[0],
        train_labels=train[1],
        test_images=images,
        test_labels=labels,
        num_classes=top + 1 if num_classes is None else num_classes,
        max_value=max_value,
    )
    return dataset.held_out(test_size)[1] if test is None else dataset


def images_and_labels(
    file: pathlib.Path, arrays: dict[str, np.ndarray], *, prefix: str = ""
) -> tuple[np.ndarray, np.ndarray] | None:
    """Images `[n, h, w, c]` uint8 and labels `[n]` int32 under one of their usual names.

    Raises:
      ValueError: if only one of the two is there, or they have the wrong type or length.
    """
    image_key = next((prefix + k for k in IMAGE_KEYS if prefix + k in arrays), None)
    label_key = next((prefix + k for k in LABEL_KEYS if prefix + k in arrays), None)
    if image_key is None and label_key is None:
        return None
    if image_key is None or label_key is None:
        raise ValueError(
            f"{file} needs {prefix}images and {prefix}labels; it has {', '.join(arrays)}"
        )
    images, labels = arrays[image_key], arrays[label_key]
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{image_key} of {file} must be uint8 [n, h, w, c], got {images.dtype} {images.shape}"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{label_key} of {file} must be integers {images.shape[:1]}, "
            f"got {labels.dtype} {labels.shape}"
        )
    return images, labels.astype(np.int32)


def _part(
    file: pathlib.Path, arrays: dict[str, np.ndarray], prefix: str, *, required: bool
) -> tuple[np.ndarray, np.ndarray]:
    found = images_and_labels(file, arrays, prefix=prefix)
    if found is None and required:
        found = images_and_labels(file, arrays)
        if found is None:
            raise ValueError(f"{file} needs images and labels; it has {', '.join(arrays)}")
    return found  # type: ignore[return-value]
