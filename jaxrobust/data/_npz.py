"""A data set in one npz file."""

import pathlib

import numpy as np

from jaxrobust.data._dataset import Dataset
from jaxrobust.data._examples import as_bytes, dark, named
from jaxrobust.data._files import expanded, read_npz
from jaxrobust.inputs import InputError, as_count, as_labels

IMAGE_KEYS = ("images", "image")
LABEL_KEYS = ("labels", "label")


def npz(
    path: str,
    *,
    num_classes: int | None = None,
    test_size: int = 0,
    max_value: int | None = None,
    name: str | None = None,
) -> Dataset:
    """A data set in one npz file: `train_images`, `train_labels`, `test_images`, `test_labels`.

    The training part may also be called `images` and `labels` (or `image` and `label`). A file
    without a test part needs `test_size`.

    Args:
      path: the file; images are uint8 `[n, h, w, c]` or `[n, h, w]`, labels integers `[n]`.
      num_classes: default the largest label plus 1, if every class below it has an example.
      test_size: training examples to hold out as the test set (at random, seed 0), in a file
        without a test part.
      max_value: the uint8 value that means 1.0; default 255, if the images reach more than a
        fourth of it.
      name: what results call the set; default the file's name without its ending.

    Returns:
      The data set.

    Raises:
      ValueError: in one line, if the file is missing or damaged, lacks an array, its arrays do
        not fit together, or the classes or the scale of the images are in doubt.

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
    test_size = as_count(test_size, name="test_size", least=0)
    file = expanded(path)
    arrays = read_npz(file)
    train = _part(file, arrays, "train_", required=True)
    test = _part(file, arrays, "test_", required=False)
    size = len(train[1])
    if test is None and not 0 < test_size < size:
        raise InputError(
            f"{file} has no test_images and test_labels: test_size, the number of training "
            f"examples to test on, must be in 1..{size - 1}, got {test_size}"
        )
    if test is not None and test_size:
        raise InputError(f"test_size must be 0, because {file} has a test part, got {test_size}")
    images, labels = test if test is not None else (train[0][:0], train[1][:0])
    with named(file):
        if num_classes is None:
            num_classes = _classes_of(np.concatenate([train[1], labels]))
        if max_value is None:
            max_value = 255
            for part, pixels in (("training", train[0]), ("test", images)):
                if doubt := dark(pixels, max_value, name=f"{part} images"):
                    raise InputError(f"{doubt}, or max_value=255 if they really are that dark")
    dataset = Dataset(
        name=name or file.stem,
        train_images=train[0],
        train_labels=train[1],
        test_images=images,
        test_labels=labels,
        num_classes=num_classes,
        max_value=max_value,
    )
    return dataset.held_out(test_size)[1] if test is None else dataset


def images_and_labels(
    file: pathlib.Path, arrays: dict[str, np.ndarray], *, prefix: str = ""
) -> tuple[np.ndarray, np.ndarray] | None:
    """Images `[n, h, w, c]` uint8 and labels `[n]` int32 under one of their usual names.

    Raises:
      InputError: if only one of the two is there, there are no examples, or the arrays have the
        wrong type, layout or length.
    """
    for keys in (IMAGE_KEYS, LABEL_KEYS):
        if all(prefix + key in arrays for key in keys):
            names = " and ".join(prefix + key for key in keys)
            raise InputError(f"{file} must have one of {names}, which mean the same; it has both")
    image_key = next((prefix + k for k in IMAGE_KEYS if prefix + k in arrays), None)
    label_key = next((prefix + k for k in LABEL_KEYS if prefix + k in arrays), None)
    if image_key is None and label_key is None:
        return None
    if image_key is None or label_key is None:
        raise InputError(
            f"{file} needs {prefix}images and {prefix}labels; it has {', '.join(arrays)}"
        )
    with named(file):
        grey = arrays[image_key].ndim == 3
        images = as_bytes(
            arrays[image_key][..., None] if grey else arrays[image_key], name=image_key
        )
        labels = as_labels(arrays[label_key], batch=len(images), name=label_key)
        if not len(images):
            raise InputError(f"{image_key} must have at least one image, got {images.shape}")
    return images, labels


def _classes_of(labels: np.ndarray) -> int:
    """The number of classes, where all of them occur.

    Raises:
      InputError: if a class below the largest has no example, or there is only one class.
    """
    found = np.unique(labels)
    classes = int(found[-1]) + 1
    if len(found) < classes:
        absent = np.setdiff1d(np.arange(min(classes, found.size + 1)), found)[0]
        raise InputError(
            f"labels must be class indices 0..k-1, got values from {found[0]} to {found[-1]} "
            f"without {absent}; renumber them, or give num_classes if class {absent} is absent"
        )
    if classes < 2:
        raise InputError("labels must be of at least two classes, got 0 alone; give num_classes")
    return classes


def _part(
    file: pathlib.Path, arrays: dict[str, np.ndarray], prefix: str, *, required: bool
) -> tuple[np.ndarray, np.ndarray]:
    found = images_and_labels(file, arrays, prefix=prefix)
    if found is None and required:
        found = images_and_labels(file, arrays)
        if found is None:
            raise InputError(
                f"{file} needs {prefix}images and {prefix}labels (or images and labels); it has "
                f"{', '.join(arrays) or 'nothing'}"
            )
    return found  # type: ignore[return-value]
