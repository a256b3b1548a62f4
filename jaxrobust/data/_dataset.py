"""A classification data set in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jaxrobust.data._examples import (
    as_class_names,
    as_examples,
    as_max_value,
    check_scale,
    named,
    warn_of_dark,
)
from jaxrobust.inputs import InputError, as_choice, as_count, as_seed


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as uint8 in host memory; steps turn them into floats in [0, 1] on the device.

    Everything is checked when the data set is made. A warning says where 100 or more images reach
    at most a fourth of `max_value`: their scale is probably another one.

    Attributes:
      name: what results call it.
      train_images: `[n, h, w, c]` uint8.
      train_labels: `[n]` int32; other integers are converted.
      test_images: `[m, h, w, c]` uint8.
      test_labels: `[m]` int32; other integers are converted.
      num_classes: number of classes `k`, at least 2.
      max_value: the uint8 value that means 1.0; no pixel is above it.
      class_names: one for each class, or empty where they are unknown.

    Raises:
      ValueError: in one line, if one of them is none of these.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    max_value: int = 255
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        with named(self.name):
            classes = as_count(self.num_classes, name="num_classes", least=2)
            values: dict[str, Any] = {
                "num_classes": classes,
                "max_value": as_max_value(self.max_value),
                "class_names": as_class_names(self.class_names, classes=classes),
            }
            for part in ("train", "test"):
                images, labels = (getattr(self, f"{part}_{kind}") for kind in ("images", "labels"))
                images, labels = as_examples(
                    images, labels, prefix=f"{part}_", classes=self.num_classes
                )
                values |= {f"{part}_images": images, f"{part}_labels": labels}
                check_scale(images, values["max_value"], name=f"{part}_images")
                warn_of_dark(images, values["max_value"], name=f"{part}_images of {self.name}")
            shapes = {values[f"{part}_images"].shape[1:] for part in ("train", "test")}
            if len(shapes) > 1 and len(values["train_labels"]) and len(values["test_labels"]):
                raise InputError(
                    "train_images and test_images must have one size, got shapes "
                    f"{values['train_images'].shape} and {values['test_images'].shape}; image "
                    "files are brought to one size by resize=(height, width)"
                )
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.train_labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(h, w, c)`."""
        return self.train_images.shape[1:]

    def floats(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images `[n, h, w, c]` float32 in [0, 1] and labels `[n]` of `train` or `test`."""
        as_choice(part, name="part", choices=("train", "test"))
        images = getattr(self, f"{part}_images").astype(np.float32) / np.float32(self.max_value)
        return images, getattr(self, f"{part}_labels")

    def held_out(self, size: int, *, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """Training data without `size` random examples, and those examples as a test set.

        Args:
          size: number of training examples to hold out for validation.
          seed: which ones.

        Returns:
          `(rest, validation)`: `rest` keeps the test set; `validation` has the held-out
          examples in place of the test set.

        Raises:
          ValueError: if fewer than one training example would be left.
        """
        kept, out = held_out_indices(self.train_size, size, seed=seed)
        images, labels = self.train_images, self.train_labels
        rest = replace(self, train_images=images[kept], train_labels=labels[kept])
        return rest, replace(rest, test_images=images[out], test_labels=labels[out])

    def select(self, classes: Sequence[int]) -> "Dataset":
        """The examples of some classes, which become classes 0, 1, ... in the order given.

        Args:
          classes: different class indices, at least two.

        Returns:
          A data set of `len(classes)` classes.

        Raises:
          ValueError: if a class does not exist or is given twice.
        """
        try:
            chosen = [as_count(label, name="classes", least=0) for label in classes]
        except (TypeError, InputError):
            chosen = []
        if len(set(chosen)) < max(2, len(chosen)) or max(chosen) >= self.num_classes:
            raise InputError(
                f"classes must be at least two different ones of 0..{self.num_classes - 1} "
                f"of {self.name}, got {classes!r}"
            )
        place = np.full(self.num_classes, -1, np.int32)
        place[chosen] = np.arange(len(chosen))
        parts: dict[str, Any] = {}
        for part in ("train", "test"):
            labels = place[getattr(self, f"{part}_labels")]
            parts[f"{part}_images"] = getattr(self, f"{part}_images")[labels >= 0]
            parts[f"{part}_labels"] = labels[labels >= 0]
        parts["name"] = f"{self.name}[{','.join(map(str, chosen))}]"
        parts["class_names"] = tuple(self.class_names[k] for k in chosen if self.class_names)
        return replace(self, num_classes=len(chosen), **parts)


def held_out_indices(count: int, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `count` examples are trained on and which `size` of them are held out, ascending.

    Raises:
      InputError: if fewer than one training example would be left.
    """
    size, seed = as_count(size, name="size", least=0), as_seed(seed)
    if size >= count:
        raise InputError(f"size must be between 0 and {count - 1} training examples, got {size}")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])
