"""Devices on one axis, and what lies on all of them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "devices"


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
