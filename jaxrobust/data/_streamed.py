"""A classification data set whose training images stay on disk until a step needs them."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxrobust.data._dataset import Dataset, held_out_indices
from jaxrobust.data._examples import as_indices, named
from jaxrobust.data._sources import Source, in_memory
from jaxrobust.inputs import InputError


@dataclass(frozen=True, eq=False)
class Streamed:
    """A data set larger than memory: its training part is read by `Stream`, step by step.

    Its test part, and what is held out for validation, are in memory.

    Attributes:
      source: the training examples, decoded on demand.
      indices: `[n]` which of them are trained on.
      test_images: `[m, h, w, c]` uint8.
      test_labels: `[m]` int32; other integers are converted.
      max_value: the uint8 value that means 1.0; pixels above it are refused when they are read.

    Raises:
      ValueError: in one line, if one of them is none of these, or the parts differ in size.
    """

    source: Source
    indices: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    max_value: int = 255

    def __post_init__(self) -> None:
        source = replace(self.source, max_value=self.max_value)
        object.__setattr__(self, "source", source)
        with named(self.name):
            indices = as_indices(self.indices, size=len(source))
            if not len(indices):
                raise InputError("indices must be of at least one training example, got none")
            object.__setattr__(self, "indices", indices)
        if not len(self.test_labels):
            return
        tested = self._in_memory(self.test_images, self.test_labels)
        object.__setattr__(self, "test_images", tested.test_images)
        object.__setattr__(self, "test_labels", tested.test_labels)
        if self.test_images.shape[1:] != self.image_shape:
            raise InputError(
                f"images of {self.name} must have one size, but training ones are "
                f"{self.image_shape} and test ones {self.test_images.shape[1:]}; choose one with "
                "resize=(height, width)"
            )

    @property
    def name(self) -> str:
        """What results call it."""
        return self.source.name

    @property
    def num_classes(self) -> int:
        """Number of classes `k`."""
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """One for each class, or empty where they are unknown."""
        return self.source.class_names

    @property
    def train_size(self) -> int:
        """Number of training examples."""
        return len(self.indices)

    @cached_property
    def image_shape(self) -> tuple[int, ...]:
        """`(h, w, c)`, of the first training image; the others are checked when they are read."""
        return self.source[int(self.indices[0])]["image"].shape

    def floats(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Images `[m, h, w, c]` float32 in [0, 1] and labels `[m]` of the `test` part.

        Raises:
          ValueError: for the `train` part, which is not in memory.
        """
        return self._in_memory(self.test_images, self.test_labels).floats(part)

    def held_out(self, size: int, *, seed: int = 0) -> tuple["Streamed", Dataset]:
        """Training data without `size` random examples, and those, in memory, as a test set.

        The same examples as `Dataset.held_out` takes.

        Args:
          size: number of training examples to hold out for validation.
          seed: which ones.

        Returns:
          `(rest, validation)`.

        Raises:
          ValueError: if fewer than one training example would be left.
        """
        kept, out = held_out_indices(self.train_size, size, seed=seed)
        rest = replace(self, indices=self.indices[kept])
        if not size:
            none = np.empty((0, *self.image_shape), np.uint8), np.empty(0, np.int32)
            return rest, self._in_memory(*none)
        return rest, self._in_memory(*in_memory(self.source, self.indices[out]))

    def _in_memory(self, images: np.ndarray, labels: np.ndarray) -> Dataset:
        """A data set of these test examples and no training examples."""
        return Dataset(
            name=self.name,
            train_images=np.empty((0, *self.image_shape), np.uint8),
            train_labels=np.empty(0, np.int32),
            test_images=images,
            test_labels=labels,
            num_classes=self.num_classes,
            max_value=self.max_value,
            class_names=self.class_names,
        )


def streamed(train: Source, test: Source) -> Streamed:
    """A data set whose training part is streamed and whose test part is decoded into memory.

    Args:
      train: the training examples.
      test: the test examples.

    Returns:
      `Streamed`.

    Raises:
      ValueError: in one line, if the parts differ in classes or image sizes, one is empty, or an
        image cannot be read.

    Example:
      >>> from jaxrobust import data
      >>> sets = [data.tfds_source("mnist", split=part) for part in ("train", "test")]  # doctest: +SKIP
      >>> mnist = data.streamed(*sets)  # doctest: +SKIP
    """  # noqa: E501
    if not len(train):
        raise InputError(f"{train.name} has no examples")
    if train.num_classes != test.num_classes:
        raise InputError(
            f"{train.name} has {train.num_classes} classes, {test.name} {test.num_classes}"
        )
    for label, names in enumerate(zip(train.class_names, test.class_names, strict=False)):
        if names[0] != names[1]:
            raise InputError(
                f"class {label} is {names[0]!r} in {train.name}, the training examples, and "
                f"{names[1]!r} in {test.name}, the test examples"
            )
    return Streamed(train, np.arange(len(train)), *in_memory(test))
