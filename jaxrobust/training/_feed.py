"""Which examples a run trains on, and in which order."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from jax import Array

from jaxrobust.data import Dataset, epoch_order, mixed_order, mixed_steps
from jaxrobust.experiment import Experiment


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
          ValueError: if a batch is larger than the training set, or generated images do not fit.
        """
        size, batch_size = len(dataset.train_labels), experiment.batch_size
        extra = experiment.build("generated")
        if extra is not None:
            images, labels = extra.joined(dataset)
            order = partial(
                mixed_order,
                size=size,
                generated_size=len(extra.labels),
                batch_size=batch_size,
                fraction=extra.fraction,
            )
            return cls(images, labels, order, mixed_steps(size=size, batch_size=batch_size))
        if size < batch_size:
            raise ValueError(
                f"batch_size must be at most the {size} training examples, got {batch_size}"
            )
        order = partial(epoch_order, size=size, batch_size=batch_size)
        return cls(dataset.train_images, dataset.train_labels, order, size // batch_size)
