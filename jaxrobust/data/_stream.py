"""Batches of sets that are larger than memory, read by grain; resumable exactly."""

from functools import partial
from typing import Any

import numpy as np

from jaxrobust.data._sources import Source, unequal


class Stream:
    """An endless iterator over batches whose position can be saved and restored.

    Every epoch is a fresh shuffle of the examples, a function of the seed and the epoch. Each of
    its batches is `(images [b, h, w, c] uint8, labels [b] int32)`. Made by `stream`.

    Attributes:
      steps_per_epoch: batches per epoch, the same on every process.
    """

    def __init__(self, batches: Any, steps_per_epoch: int, settings: dict[str, Any]) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._settings = settings
        self._batches = iter(batches)

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """Where the stream is, as JSON types; `set_state` continues with the next batch."""
        return {**self._settings, "position": self._batches.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called, in this process or another.

        Args:
          state: what `get_state` returned for a stream of the same source and settings.

        Raises:
          ValueError: if the stream it came from had other settings: the batches would differ.
        """
        for name, value in self._settings.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state is of a stream with {name} {state.get(name)}, this one has {value}"
                )
        self._batches.set_state(state["position"])


def stream(
    source: Source,
    *,
    batch_size: int,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 8,
) -> Stream:
    """Shuffled batches of a source that need not fit into memory.

    Args:
      source: such as `tfds_source(...)` or `folder_source(...)`; `source[i]` is
        `{"image": [h, w, c] uint8, "label": int}`.
      batch_size: examples per step, over all processes.
      seed: of the shuffles; the same on every process.
      process_index: of this process (`jax.process_index()`); processes see disjoint examples.
      process_count: `jax.process_count()`; the batches of this process have
        `batch_size / process_count` examples.
      threads: that read and decode, each a batch ahead.

    Returns:
      A `Stream`.

    Raises:
      ValueError: in one line, if the batch does not split over the processes or is larger than
        the source; while reading, if an image is unreadable or two differ in size.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import data
      >>> examples = [{"image": np.full((2, 2, 1), i, np.uint8), "label": i} for i in range(10)]
      >>> batches = data.stream(examples, batch_size=4, threads=1)
      >>> images, labels = next(batches)
      >>> state = batches.get_state()
      >>> following = next(batches)[1]
      >>> batches.set_state(state)
      >>> bool((next(batches)[1] == following).all())
      True
    """
    # Imported here: only streams need grain, which takes a second to load.
    import grain

    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be between 0 and {process_count - 1}, got {process_index}"
        )
    size = len(source)
    if not 1 <= batch_size <= size or batch_size % process_count:
        raise ValueError(
            f"batch_size must be a multiple of the {process_count} processes and at most the "
            f"{size} examples, got {batch_size}"
        )
    steps = size // batch_size
    share = batch_size // process_count
    batches = (
        grain.MapDataset.range(size)
        .seed(seed)
        .shuffle()
        # Whole batches only, before the processes part: all of them have as many steps.
        .slice(slice(0, steps * batch_size))
        .slice(slice(process_index, None, process_count))
        .batch(share, drop_remainder=True)
        .map(partial(_read, source))
        .repeat()
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
    )
    settings = {
        "seed": seed,
        "size": size,
        "batch_size": batch_size,
        "process_index": process_index,
        "process_count": process_count,
    }
    return Stream(batches, steps, settings)


def _read(source: Source, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The batch of the given examples; a `Source` reads all its records at once."""
    if isinstance(source, Source):
        records = source.read(indices.tolist())
        images = [source.decoded(record) for record in records]
        labels = [record.label for record in records]
        names = [record.where for record in records]
    else:
        examples = [source[index] for index in indices.tolist()]
        images = [example["image"] for example in examples]
        labels = [example["label"] for example in examples]
        names = [f"example {index}" for index in indices]
    for name, image in zip(names, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(unequal(names[0], images[0].shape, name, image.shape))
    return np.stack(images), np.asarray(labels, np.int32)
