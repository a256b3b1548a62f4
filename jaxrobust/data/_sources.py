"""Sequences of encoded images with labels, decoded one by one or all at once."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxrobust.data._decode import MODES, decode, size_of
from jaxrobust.data._examples import as_class_names, as_max_value, check_scale, named
from jaxrobust.inputs import InputError, as_count, as_labels

CHUNK = 256
BAR_FROM = 20_000  # fewer images are decoded before a bar would be of use


class Record(NamedTuple):
    """One example as it is stored.

    Attributes:
      encoded: the bytes of a PNG, JPEG, ... file.
      label: its class.
      where: what an error calls it.
    """

    encoded: bytes
    label: int
    where: str


@dataclass(frozen=True, eq=False)
class Source:
    """A sequence of examples that are decoded when they are asked for.

    `source[i]` is `{"image": [h, w, c] uint8, "label": int32}`.

    Attributes:
      name: what results call the data set.
      num_classes: number of classes, at least 2.
      size: number of examples.
      read: stored examples at the given indices.
      channels: 1, 3 or 4; images are converted to as many.
      resize: `(height, width)` of all images (scaled to cover it, then cropped to its centre), one
        number for both, or `None` to leave them as they are.
      max_value: the uint8 value that means 1.0; pixels above it are refused.
      class_names: one for each class, or empty where they are unknown.

    Raises:
      ValueError: in one line, if one of them is none of these.
    """

    name: str
    num_classes: int
    size: int
    read: Callable[[Sequence[int]], list[Record]]
    channels: int = 3
    resize: tuple[int, int] | None = None
    max_value: int = 255
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        with named(self.name):
            classes = as_count(self.num_classes, name="num_classes", least=2)
            values = {
                "num_classes": classes,
                "size": as_count(self.size, name="size", least=0),
                "channels": as_channels(self.channels),
                "resize": size_of(self.resize),
                "max_value": as_max_value(self.max_value),
                "class_names": as_class_names(self.class_names, classes=classes),
            }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self.size:
            raise IndexError(f"{self.name} has {self.size} examples, no index {index}")
        (record,) = self.read([int(index)])
        return {"image": self.decoded(record), "label": self.labels([record])[0]}

    def decoded(self, record: Record) -> np.ndarray:
        """The image `[h, w, c]` uint8 of a stored example.

        Args:
          record: of this source.

        Returns:
          The pixels, as `image_folder` describes them.

        Raises:
          ValueError: if the bytes are no image, or a pixel is above `max_value`.
        """
        pixels = decode(
            record.encoded, where=record.where, channels=self.channels, resize=self.resize
        )
        if self.max_value < 255:
            check_scale(pixels, self.max_value, name=record.where)
        return pixels

    def labels(self, records: Sequence[Record]) -> np.ndarray:
        """The classes `[n]` int32 of stored examples.

        Args:
          records: of this source.

        Returns:
          Their classes.

        Raises:
          ValueError: if one is none of this source's classes.
        """
        with named(self.name):
            labels = [record.label for record in records]
            return as_labels(labels, batch=len(records), classes=self.num_classes)


def as_channels(channels: int) -> int:
    """The number of channels that images are converted to.

    Raises:
      InputError: if images cannot be converted to as many.
    """
    if as_count(channels, name="channels") not in MODES:
        raise InputError(f"channels must be one of {', '.join(map(str, MODES))}, got {channels}")
    return channels


def in_memory(source: Source, chosen: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Examples of a source: decoded by threads, with a bar where it takes long.

    Args:
      source: whose examples.
      chosen: the indices of those that are read; default all.

    Returns:
      Images `[n, h, w, c]` uint8 and labels `[n]` int32.

    Raises:
      ValueError: in one line, if an image cannot be read or two differ in size.
    """
    if not len(source):
        raise InputError(f"{source.name} has no examples")
    chosen = np.arange(len(source)) if chosen is None else chosen
    size = len(chosen)
    (first,) = source.read([0])
    shape = source.decoded(first).shape
    images = np.empty((size, *shape), np.uint8)
    labels = np.empty(size, np.int32)

    def decode(start: int) -> int:
        stop = min(start + CHUNK, size)
        records = source.read(chosen[start:stop].tolist())
        labels[start:stop] = source.labels(records)
        for index, record in zip(range(start, stop), records, strict=True):
            image = source.decoded(record)
            if image.shape != shape:
                raise InputError(unequal(first.where, shape, record.where, image.shape))
            images[index] = image
        return stop - start

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    bar = Progress(*columns, TimeRemainingColumn(), transient=True, disable=size < BAR_FROM)
    with bar, ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        task = bar.add_task(f"decoding {source.name}", total=size)
        futures = [pool.submit(decode, start) for start in range(0, size, CHUNK)]
        try:
            for future in futures:
                bar.advance(task, future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return images, labels


def unequal(first: str, first_shape: tuple, other: str, other_shape: tuple) -> str:
    """What to say about images of two sizes."""
    return (
        f"images must have one size, but {first} is {first_shape[0]} x {first_shape[1]} and "
        f"{other} is {other_shape[0]} x {other_shape[1]}; choose one with resize=(height, width)"
    )
