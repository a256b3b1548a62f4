"""Batches of sets that are larger than memory, read ahead by grain; resumable exactly."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from jaxrobust.data._batches import epoch_order
from jaxrobust.data._examples import as_bytes, as_indices, image_hint
from jaxrobust.data._sources import Source, unequal
from jaxrobust.inputs import InputError, as_count, as_labels, as_seed
from jaxrobust.keys import key_of

ENDLESS = 2**31 - 1  # steps; grain wants a length


class Stream:
    """An endless iterator over batches, of which step `s` is a function of `s` alone.

    Each batch is `(images [b, h, w, c] uint8, labels [b] int32)`. grain only reads ahead; nothing
    but the step has to be saved to continue with the identical batches. Made by `stream`, or from
    an order of your own.

    Args:
      source: `source[i]` is `{"image": [h, w, c] uint8, "label": int}`.
      indices: step -> `[b]`, which examples; called by several threads.
      steps_per_epoch: batches per epoch.
      start: the first step.
      threads: that read and decode, each a batch ahead.
      settings: what the batches are a function of, JSON types; `set_state` compares it.

    Raises:
      ValueError: in one line, if a count is out of range; while reading, if an index is out of
        range, an image is unreadable or not uint8 `[h, w, c]`, two differ in size, or a label is
        no class.

    Attributes:
      steps_per_epoch: batches per epoch, the same on every process.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import data
      >>> examples = [{"image": np.full((2, 2, 1), i, np.uint8), "label": i} for i in range(10)]
      >>> batches = data.Stream(examples, lambda step: np.array([step, 9 - step]), start=2)
      >>> next(batches)[1].tolist()
      [2, 7]
    """

    def __init__(
        self,
        source: Any,
        indices: Callable[[int], np.ndarray],
        *,
        steps_per_epoch: int = 1,
        start: int = 0,
        threads: int = 8,
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.steps_per_epoch = as_count(steps_per_epoch, name="steps_per_epoch")
        self._settings = settings or {}
        self._read = partial(_step, source, indices)
        self._threads = as_count(threads, name="threads")
        self._batches: Any = None
        self._go_to(as_count(start, name="start", least=0))

    def _go_to(self, step: int) -> None:
        # Imported here: only streams need grain, which takes a second to load.
        import grain

        self.close()
        self._next = step
        ahead = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=self._threads)
        steps = grain.MapDataset.range(step, ENDLESS)
        self._batches = iter(steps.map(self._read).to_iter_dataset(ahead))

    def __iter__(self) -> "Stream":
        return self

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            batch = next(self._batches)
        except InputError as error:  # to which grain has added lines about its own frames
            raise InputError(str(error)) from error.__cause__
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the stream is, as JSON types; `set_state` continues with the next batch."""
        return {**self._settings, "step": self._next}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues where `get_state` was called, in this process or another.

        Args:
          state: what `get_state` returned for a stream of the same source and settings.

        Raises:
          ValueError: if the stream it came from had other settings: the batches would differ; or
            if it is no state.
        """
        step = as_count(state.get("step"), name="state['step']", least=0)
        for name, value in self._settings.items():
            if state.get(name) != value:
                raise InputError(
                    f"the state comes from a stream with {name} {state.get(name)}, this one has "
                    f"{value}"
                )
        self._go_to(step)

    def close(self) -> None:
        """Stops reading ahead."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


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

    Every epoch is a fresh permutation, `epoch_order` of the seed's key and the epoch.

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
        the source, or another count is out of range; while reading, as `Stream` does.

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
    process_count = as_count(process_count, name="process_count")
    process_index = as_count(process_index, name="process_index", least=0, most=process_count - 1)
    seed = as_seed(seed)
    size, batch_size = len(source), as_count(batch_size, name="batch_size")
    if batch_size > size or batch_size % process_count:
        raise InputError(
            f"batch_size must be a multiple of the {process_count} processes and at most the "
            f"{size} examples, got {batch_size}"
        )
    share = batch_size // process_count
    mine = slice(process_index * share, (process_index + 1) * share)
    order = partial(epoch_order, key_of(seed), size=size, batch_size=batch_size)
    indices = indices_of_steps(order, size // batch_size)
    return Stream(
        source,
        lambda step: indices(step)[mine],
        steps_per_epoch=size // batch_size,
        threads=threads,
        settings={
            "seed": seed,
            "size": size,
            "batch_size": batch_size,
            "process_index": process_index,
            "process_count": process_count,
        },
    )


def indices_of_steps(
    order: Callable[[int], Any], steps_per_epoch: int
) -> Callable[[int], np.ndarray]:
    """An order of epochs as a function of the step, for `Stream`.

    Args:
      order: epoch -> `[steps_per_epoch, b]` indices, such as `epoch_order`.
      steps_per_epoch: its rows.

    Returns:
      step -> `[b]` indices. The last two epochs' orders are kept: reading ahead crosses their
      boundary.

    Raises:
      ValueError: if `steps_per_epoch` is no integer of at least 1.

    Example:
      >>> from jaxrobust import data
      >>> indices = data.indices_of_steps(lambda epoch: [[2 * epoch], [2 * epoch + 1]], 2)
      >>> [int(indices(step)[0]) for step in range(4)]
      [0, 1, 2, 3]
    """
    steps_per_epoch = as_count(steps_per_epoch, name="steps_per_epoch")
    of_epoch = lru_cache(maxsize=2)(lambda epoch: np.asarray(order(epoch)))
    return lambda step: of_epoch(step // steps_per_epoch)[step % steps_per_epoch]


def _step(
    source: Any, indices: Callable[[int], np.ndarray], step: int
) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step; a `Source` reads all its records at once."""
    size = len(source) if hasattr(source, "__len__") else None
    chosen = as_indices(indices(int(step)), size=size).tolist()
    if not chosen:
        raise InputError(f"indices must be of at least one example a step, got none in step {step}")
    if isinstance(source, Source):
        records = source.read(chosen)
        images = [source.decoded(record) for record in records]
        labels = source.labels(records)
        names = [record.where for record in records]
    else:
        examples = [source[index] for index in chosen]
        images = [_array(example, "image", i) for i, example in zip(chosen, examples, strict=True)]
        each = [_array(example, "label", i) for i, example in zip(chosen, examples, strict=True)]
        labels = _as_one(each, chosen)
        names = [f"example {index}" for index in chosen]
    for name, image in zip(names, images, strict=True):
        if image.dtype != np.uint8 or image.ndim != 3:
            raise InputError(
                f"the image of {name} must be uint8 [h, w, c], got {image.dtype} {image.shape}"
                f"{image_hint(image)}"
            )
        if image.shape != images[0].shape:
            raise InputError(unequal(names[0], images[0].shape, name, image.shape))
    return as_bytes(np.stack(images), name="images"), labels


def _array(example: Any, name: str, index: int) -> np.ndarray:
    """The image or the label of an example."""
    try:
        return np.asarray(example[name])
    except (KeyError, IndexError, TypeError):
        kind = ", ".join(map(str, example)) if isinstance(example, dict) else type(example).__name__
        raise InputError(
            f"source[{index}] must be a dict with the keys image and label, got {kind}"
        ) from None


def _as_one(labels: list[np.ndarray], chosen: list[int]) -> np.ndarray:
    """The labels of a batch `[b]` int32."""
    for index, label in zip(chosen, labels, strict=True):
        if label.ndim:
            raise InputError(
                f"label of example {index} must be one integer, got {label.dtype} {label.shape}"
            )
    return as_labels(np.stack(labels), batch=len(labels), name="labels")
