"""A classification data set in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as uint8 in host memory; steps turn them into floats in [0, 1] on the device.

    Attributes:
      name: what results call it.
      train_images: `[n, h, w, c]` uint8.
      train_labels: `[n]` int32.
      test_images: `[m, h, w, c]` uint8.
      test_labels: `[m]` int32.
      num_classes: number of classes `k`.
      max_value: the uint8 value that means 1.0.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int
    max_value: int = 255

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            images, labels = getattr(self, f"{part}_images"), getattr(self, f"{part}_labels")
            if images.dtype != np.uint8 or images.ndim != 4:
                raise ValueError(
                    f"{part}_images of {self.name} must be uint8 [n, h, w, c], "
                    f"got {images.dtype} {images.shape}"
                )
            if labels.shape != images.shape[:1]:
                raise ValueError(
                    f"{part}_labels of {self.name} must have shape {images.shape[:1]}, "
                    f"got {labels.shape}"
                )
            if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(
                    f"{part}_labels of {self.name} must be in 0..{self.num_classes - 1}, "
                    f"got {labels.min()}..{labels.max()}"
                )

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
        if len(set(classes)) < max(2, len(classes)) or not set(classes) <= set(
            range(self.num_classes)
        ):
            raise ValueError(
                f"classes must be at least two different ones of 0..{self.num_classes - 1} "
                f"of {self.name}, got {list(classes)}"
            )
        place = np.full(self.num_classes, -1, np.int32)
        place[list(classes)] = np.arange(len(classes))
        parts = {}
        for part in ("train", "test"):
            labels = place[getattr(self, f"{part}_labels")]
            parts[f"{part}_images"] = getattr(self, f"{part}_images")[labels >= 0]
            parts[f"{part}_labels"] = labels[labels >= 0]
        name = f"{self.name}[{','.join(map(str, classes))}]"
        return replace(self, name=name, num_classes=len(classes), **parts)


def held_out_indices(count: int, size: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `count` examples are trained on and which `size` of them are held out, ascending.

    Raises:
      ValueError: if fewer than one training example would be left.
    """
    if not 0 <= size < count:
        raise ValueError(f"size must be between 0 and {count - 1} training examples, got {size}")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[size:]), np.sort(order[:size])
