"""What a step reads: the whole set and its order, or one streamed batch after the other."""

from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.data import Dataset, Generated, Source, Stream, Streamed, indices_of_steps
from jaxrobust.devices import AXIS, replicated
from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of
from jaxrobust.training._feed import Feed, Order
from jaxrobust.training._rows import image_rows
from jaxrobust.training._runners import Runner

Supplied = tuple[Any, Any, Any]  # images as rows, labels, order: as `make_train_step` takes them


def make_supply(
    experiment: Experiment, dataset: Dataset | Streamed, mesh: Mesh, *, runner: Runner
) -> "InMemory | OneByOne":
    """The supply of a run. A streamed set gives the same batches, bit for bit, as one in memory.

    Args:
      experiment: batch size, seed, and generated images.
      dataset: without what is held out.
      mesh: of the devices that train.
      runner: of the step.

    Returns:
      What has `steps_per_epoch`, `at(step)` and `close()`.

    Raises:
      ValueError: if a batch is larger than the training set, or generated images do not fit.
    """
    key = jax.random.fold_in(key_of(experiment.seed), 1)
    if isinstance(dataset, Streamed):
        return OneByOne(experiment, dataset, mesh, key, split=runner == "shard_map")
    return InMemory(Feed.of(experiment, dataset), mesh, key)


class InMemory:
    """The whole set on every device, and each epoch's order.

    Args:
      feed: images, labels and their order.
      mesh: of the devices.
      key: of the order.
    """

    def __init__(self, feed: Feed, mesh: Mesh, key: Array) -> None:
        self.steps_per_epoch = feed.steps_per_epoch
        self._held = replicated((image_rows(feed.images), feed.labels), mesh)
        self._of_epoch, self._key, self._mesh = jax.jit(feed.order), key, mesh
        self._epoch, self._order = -1, None

    def at(self, step: int) -> Supplied:
        """What the step takes."""
        epoch = step // self.steps_per_epoch
        if epoch != self._epoch:
            self._order = replicated(self._of_epoch(self._key, epoch), self._mesh)
            self._epoch = epoch
        return *self._held, self._order

    def close(self) -> None:
        """Nothing to end."""


class OneByOne:
    """A step's batch alone, read ahead of it; each process reads what its devices take.

    Args:
      experiment: batch size and generated images.
      dataset: the examples.
      mesh: of the devices.
      key: of the order.
      split: the batch over the devices; otherwise all of them get the whole of it.
    """

    def __init__(
        self, experiment: Experiment, dataset: Streamed, mesh: Mesh, key: Array, *, split: bool
    ) -> None:
        extra, batch_size = experiment.build("generated"), experiment.batch_size
        order = Order.of(size=dataset.train_size, batch_size=batch_size, generated=extra)
        self.steps_per_epoch = order.steps_per_epoch
        of_epoch = jax.jit(order.of_epoch)
        indices = indices_of_steps(lambda epoch: of_epoch(key, epoch), order.steps_per_epoch)
        self._batch_size, self._split, self._mesh = batch_size, split, mesh
        self._sharding = NamedSharding(mesh, P(AXIS) if split else P())
        mine = self._mine = _places(self._sharding, batch_size)
        self._source: Any = dataset.source
        if extra is None:
            self._indices = lambda step: dataset.indices[indices(step)[mine]]
        else:
            extra.check_fits(dataset)
            self._source = _Joined(dataset.source, dataset.indices, extra)
            self._indices = lambda step: indices(step)[mine]
        self._stream: Stream | None = None
        self._next = -1

    def at(self, step: int) -> Supplied:
        """What the step takes; steps in another order than one after the other are read anew."""
        if self._stream is None or step != self._next:
            self.close()
            self._stream = Stream(self._source, self._indices, start=step)
        images, labels = next(self._stream)
        self._next = step + 1
        order = None
        if not self._split:
            order = replicated(np.arange(self._batch_size, dtype=np.int32)[None], self._mesh)
        return self._placed(image_rows(images)), self._placed(labels), order

    def _placed(self, rows: np.ndarray) -> jax.Array:
        """This process's rows as its part of the batch's array."""

        def part(index: Any) -> np.ndarray:
            return rows[np.searchsorted(self._mine, np.arange(self._batch_size)[index[0]])]

        shape = (self._batch_size, *rows.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, part)

    def close(self) -> None:
        """Stops reading ahead."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _places(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """The places of a batch that this process's devices take, ascending."""
    everywhere = np.arange(batch_size)
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([everywhere[index] for index in parts]))


class _Joined:
    """The chosen examples of a source, followed by generated ones."""

    def __init__(self, source: Source, indices: np.ndarray, extra: Generated) -> None:
        self._source, self._indices, self._extra = source, indices, extra

    def __len__(self) -> int:
        return len(self._indices) + len(self._extra.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        count = len(self._indices)
        if index < count:
            return self._source[int(self._indices[index])]
        return {
            "image": self._extra.images[index - count],
            "label": self._extra.labels[index - count],
        }
