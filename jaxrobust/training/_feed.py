"""Which examples a run trains on, and in which order."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jax import Array

from jaxrobust.data import Dataset, Generated, Streamed, epoch_order, mixed_order, mixed_steps
from jaxrobust.experiment import Experiment


class Order(NamedTuple):
    """The order of a run's training examples.

    Attributes:
      of_epoch: `(key, epoch) -> [steps_per_epoch, batch]` indices; traceable.
      steps_per_epoch: steps that count as one epoch.
    """

    of_epoch: Callable[[Array, Array | int], Array]
    steps_per_epoch: int

    @classmethod
    def of(cls, *, size: int, batch_size: int, generated: Generated | None) -> "Order":
        """The order of `size` examples, and of generated ones that follow them.

        Raises:
          ValueError: if a batch is larger than the training set.
        """
        if size < batch_size:
            raise ValueError(
                f"batch_size must be at most the {size} training examples, got {batch_size}"
            )
        if generated is None:
            return cls(partial(epoch_order, size=size, batch_size=batch_size), size // batch_size)
        of_epoch = partial(
            mixed_order,
            size=size,
            generated_size=len(generated.labels),
            batch_size=batch_size,
            fraction=generated.fraction,
        )
        return cls(of_epoch, mixed_steps(size=size, batch_size=batch_size))


class Feed(NamedTuple):
    """The training examples in memory.

    Attributes:
      images: `[n, h, w, c]` uint8; generated ones follow the labelled ones.
      labels: `[n]` int32.
      order: `(key, epoch) -> [steps_per_epoch, batch]` indices; traceable.
      steps_per_epoch: steps that count as one epoch.
    """

    images: np.ndarray
    labels: np.ndarray
    order: Callable[[Array, Array | int], Array]
    steps_per_epoch: int

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset) -> "Feed":
        """The feed of an experiment.

        Raises:
          ValueError: if a batch is larger than the training set, generated images do not fit, or
            the set is streamed.
        """
        if isinstance(dataset, Streamed):
            raise ValueError(f"{dataset.name} is streamed: it is trained on one run at a time")
        extra = experiment.build("generated")
        images, labels = dataset.train_images, dataset.train_labels
        if extra is not None:
            images, labels = extra.joined(dataset)
        order = Order.of(size=dataset.train_size, batch_size=experiment.batch_size, generated=extra)
        return cls(images, labels, *order)
