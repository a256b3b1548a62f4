"""Sequences of encoded images with labels, decoded one by one or all at once."""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CHUNK = 256
BAR_FROM = 20_000  # fewer images are decoded before a bar would be of use
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
      num_classes: number of classes.
      size: number of examples.
      read: stored examples at the given indices.
      channels: 1, 3 or 4; images are converted to as many.
      resize: `(height, width)` of all images, or `None` to leave them as they are.
    """

    name: str
    num_classes: int
    size: int
    read: Callable[[Sequence[int]], list[Record]]
    channels: int = 3
    resize: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self.size:
            raise IndexError(f"{self.name} has {self.size} examples, no index {index}")
        (record,) = self.read([int(index)])
        return {"image": self.decoded(record), "label": np.asarray(record.label, np.int32)}

    def decoded(self, record: Record) -> np.ndarray:
        """The image `[h, w, c]` uint8 of a stored example.

        Args:
          record: of this source.

        Returns:
          The pixels, resized (bilinear, antialiased) if the source does so.

        Raises:
          ValueError: if the bytes are no image.
        """
        # Imported here: only sets of encoded images need it.
        from PIL import Image

        try:
            with Image.open(io.BytesIO(record.encoded)) as image:
                converted = image.convert(MODES[self.channels])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{record.where} is no readable image: {error}") from error
        if self.resize is not None and converted.size != self.resize[::-1]:
            converted = converted.resize(self.resize[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(converted)
        return pixels[..., None] if pixels.ndim == 2 else pixels


def size_of(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """`(height, width)` from an option that may be one number.

    Raises:
      ValueError: if a side is not positive.
    """
    if resize is None:
        return None
    size = (resize, resize) if isinstance(resize, int) else tuple(resize)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"resize must be a number of pixels or (height, width), got {resize}")
    return size


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
        raise ValueError(f"{source.name} has no examples")
    chosen = np.arange(len(source)) if chosen is None else chosen
    size = len(chosen)
    (first,) = source.read([0])
    shape = source.decoded(first).shape
    images = np.empty((size, *shape), np.uint8)
    labels = np.empty(size, np.int32)

    def decode(start: int) -> int:
        stop = min(start + CHUNK, size)
        records = source.read(chosen[start:stop].tolist())
        for index, record in zip(range(start, stop), records, strict=True):
            image = source.decoded(record)
            if image.shape != shape:
                raise ValueError(unequal(first.where, shape, record.where, image.shape))
            images[index], labels[index] = image, record.label
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
