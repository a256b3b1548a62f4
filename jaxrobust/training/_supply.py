"""What a step reads: whole sets and their order, or streamed batches one after the other."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.data import (
    Dataset,
    Generated,
    Source,
    Stream,
    Streamed,
    epoch_order,
    indices_of_steps,
    mixed_order,
    mixed_steps,
)
from jaxrobust.devices import AXIS, image_rows, replicated
from jaxrobust.digests import digest_of_all
from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of
from jaxrobust.training._program import Group

DIGESTED = 64  # stored examples that stand for a streamed set
Supplied = tuple[Any, Any, Any]  # images as rows, labels, order: as `make_train_step` takes them


def make_supply(
    experiments: Sequence[Experiment], sets: Mapping[int, Dataset | Streamed], group: Group
) -> "InMemory | OneByOne":
    """The supply of a group. A streamed set gives the same batches, bit for bit, as one in memory.

    Args:
      experiments: of the group, alike but for their seeds.
      sets: by seed the training examples that are not held out.
      group: one run or several.

    Returns:
      What has `steps_per_epoch`, `examples` (of one run), `digests` (of the examples, by seed),
      `at(step)` and `close()`.

    Raises:
      ValueError: if a batch is larger than the training set, or generated images do not fit.
    """
    seeds = [experiment.seed for experiment in experiments]
    streams, feeds = {}, {}
    for seed, dataset in sets.items():
        if isinstance(dataset, Streamed):
            streams[seed] = dataset
        else:
            feeds[seed] = Feed.of(experiments[0], dataset)
    if streams:
        return OneByOne(experiments[0], streams, seeds, group)
    return InMemory(feeds, seeds, group)


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
    """The training examples of one seed in memory.

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
        extra = experiment.build("generated")
        images, labels = dataset.train_images, dataset.train_labels
        if extra is not None:
            images, labels = extra.joined(dataset)
        order = Order.of(size=dataset.train_size, batch_size=experiment.batch_size, generated=extra)
        return cls(images, labels, *order)


class InMemory:
    """The whole set of every seed on every device, and each epoch's order.

    Args:
      feeds: by seed; all of one size.
      seeds: of the group's runs.
      group: one run or several.
    """

    def __init__(self, feeds: Mapping[int, Feed], seeds: Sequence[int], group: Group) -> None:
        first = next(iter(feeds.values()))
        self.steps_per_epoch, self.examples = first.steps_per_epoch, len(first.labels)
        images = _concatenated([image_rows(feed.images) for feed in feeds.values()])
        labels = _concatenated([feed.labels for feed in feeds.values()])
        self.digests = {seed: digest_of_all(feed[:2]) for seed, feed in feeds.items()}
        self._held = replicated((images, labels), group.mesh)
        self._draw, self._group, self._seeds = jax.jit(first.order), group, seeds
        self._keys = {seed: _order_key(seed) for seed in feeds}
        self._epoch, self._order = -1, None

    def at(self, step: int) -> Supplied:
        """What the step takes."""
        epoch = step // self.steps_per_epoch
        if epoch != self._epoch:
            orders = {
                seed: self._draw(key, epoch) + number * self.examples
                for number, (seed, key) in enumerate(self._keys.items())
            }
            self._order = self._group.stack([orders[seed] for seed in self._seeds])
            self._epoch = epoch
        return *self._held, self._order

    def close(self) -> None:
        """Nothing to end."""


class OneByOne:
    """The examples of one step alone, read ahead of it; a process reads what its devices take.

    Args:
      experiment: batch size and generated images.
      sets: the examples by seed, all of one size.
      seeds: of the group's runs.
      group: one run or several. Its batch is split over the devices, or all get the whole of it
        and an order beside it.
    """

    def __init__(
        self,
        experiment: Experiment,
        sets: Mapping[int, Streamed],
        seeds: Sequence[int],
        group: Group,
    ) -> None:
        extra, batch_size = experiment.build("generated"), experiment.batch_size
        size = next(iter(sets.values())).train_size
        order = Order.of(size=size, batch_size=batch_size, generated=extra)
        self.steps_per_epoch, self._batch_size = order.steps_per_epoch, batch_size
        self.examples = size + (0 if extra is None else len(extra.labels))
        self.digests = {seed: _digest(dataset, extra) for seed, dataset in sets.items()}
        self._group, self._split = group, group.splits_streams
        self._sharding = NamedSharding(group.mesh, P(AXIS) if self._split else P())
        self._mine = _places(self._sharding, batch_size)
        self._order: Any = None
        if not self._split:
            places = {
                seed: np.arange(batch_size, dtype=np.int32)[None] + np.int32(number * batch_size)
                for number, seed in enumerate(sets)
            }
            self._order = group.stack([places[seed] for seed in seeds])
        draw = jax.jit(order.of_epoch)
        self._sources = [
            _source(dataset, extra, partial(draw, _order_key(seed)), order, self._mine)
            for seed, dataset in sets.items()
        ]
        self._streams: list[Stream] = []
        self._step = -1
        self._supplied: Supplied | None = None

    def at(self, step: int) -> Supplied:
        """What the step takes; steps in another order than one after the other are read anew."""
        if self._supplied is None or step != self._step:
            if not self._streams or step != self._step + 1:
                self.close()
                self._streams = [Stream(*source, start=step) for source in self._sources]
            images, labels = zip(*(next(stream) for stream in self._streams), strict=True)
            rows = _concatenated([image_rows(part) for part in images])
            self._supplied = self._placed(rows), self._placed(_concatenated(labels)), self._order
            self._step = step
        return self._supplied

    def _placed(self, rows: np.ndarray) -> Any:
        """This process's rows as its part of the batch's array."""
        if not self._split:
            return replicated(rows, self._group.mesh)

        def part(index: Any) -> np.ndarray:
            return rows[np.searchsorted(self._mine, np.arange(self._batch_size)[index[0]])]

        shape = (self._batch_size, *rows.shape[1:])
        return jax.make_array_from_callback(shape, self._sharding, part)

    def close(self) -> None:
        """Stops reading ahead."""
        for stream in self._streams:
            stream.close()
        self._streams, self._supplied = [], None


def _digest(dataset: Streamed, extra: Generated | None) -> str:
    """Of which examples there are, of some of them as they are stored, and of generated ones."""
    some = dataset.indices[:: -(-len(dataset.indices) // DIGESTED)]
    records = dataset.source.read([int(index) for index in some])
    arrays = [dataset.indices, np.array([record.label for record in records])]
    arrays += [np.frombuffer(record.encoded, np.uint8) for record in records]
    return digest_of_all(arrays if extra is None else [*arrays, extra.images, extra.labels])


def _order_key(seed: int) -> Array:
    return jax.random.fold_in(key_of(seed), 1)


def _concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One after the other; a single one as it is, without a copy."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _places(sharding: NamedSharding, batch_size: int) -> np.ndarray:
    """The places of a batch that this process's devices take, ascending."""
    everywhere = np.arange(batch_size)
    parts = sharding.addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([everywhere[index] for index in parts]))


def _source(
    dataset: Streamed,
    extra: Generated | None,
    of_epoch: Callable[[int], Array],
    order: Order,
    mine: np.ndarray,
) -> tuple[Any, Callable[[int], np.ndarray]]:
    """What a `Stream` reads: a source, and of a step the indices at some places of its batch."""
    indices = indices_of_steps(of_epoch, order.steps_per_epoch)
    if extra is None:
        return dataset.source, lambda step: dataset.indices[indices(step)[mine]]
    extra.check_fits(dataset)
    return _Joined(dataset.source, dataset.indices, extra), lambda step: indices(step)[mine]


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
