"""Devices on one axis, what lies on all of them, and how images lie in their memory.

A step gathers its batch out of the whole training set. From `[n, h, w, c]` the TPU's compiler does
that after copying the set into another layout, in every step, padded to four times its size for
32 x 32 colour images. Rows whose length is a multiple of the 128 lanes stay where they are.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "devices"
LANES = 128


def device_mesh(devices: Sequence[Any] | None) -> Mesh:
    """Devices on one axis, over which batches are split.

    Args:
      devices: the devices; `None` for all, of all processes.

    Returns:
      The mesh, with one axis named `AXIS`.

    Raises:
      ValueError: for no devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices must be at least one, got none")
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_split(
    batch_size: int, mesh: Mesh, *, microbatches: int = 1, word: str = "devices"
) -> None:
    """That a batch splits evenly.

    Args:
      batch_size: examples of all devices.
      mesh: the devices; the batch is split over their axis `AXIS`.
      microbatches: parts that each device takes one after the other.
      word: for the devices.

    Raises:
      ValueError: if it does not.
    """
    devices = mesh.shape[AXIS]
    if batch_size % (devices * microbatches):
        raise ValueError(
            f"batch_size must be a multiple of the {devices} {word} times "
            f"{microbatches} microbatches, got {batch_size}"
        )


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The tree with a copy on every device of the mesh; every process hands in the same."""
    sharding = NamedSharding(mesh, P())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(leaf: Any) -> jax.Array:  # without asking the other processes for their copy
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(place, tree)


def bytes_per_device(compiled: Any) -> dict[str, int]:
    """What a compiled program takes of every device's memory, as a part of a row.

    Args:
      compiled: of `jitted.lower(...).compile()`.

    Returns:
      `{"bytes_per_device": ...}`: arguments, results and what lies between; empty where the backend
      does not tell.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return {}
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {"bytes_per_device": used + memory.temp_size_in_bytes - memory.alias_size_in_bytes}


def image_rows(images: np.ndarray) -> np.ndarray:
    """Images as rows whose length is a multiple of `LANES`; a view where nothing is to pad.

    Args:
      images: `[n, h, w, c]` uint8.

    Returns:
      `[n, r]` uint8, zeros after the first `h w c`.
    """
    rows = np.reshape(images, (len(images), -1))
    missing = -rows.shape[1] % LANES
    return np.pad(rows, ((0, 0), (0, missing))) if missing else rows


def images_of(rows: Array, image_shape: tuple[int, ...]) -> Array:
    """The images of `image_rows`.

    Args:
      rows: `[b, r]`.
      image_shape: `(h, w, c)`.

    Returns:
      `[b, h, w, c]`.
    """
    return rows[:, : math.prod(image_shape)].reshape(-1, *image_shape)
