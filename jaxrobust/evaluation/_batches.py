"""Running a function over a data set in batches of one shape, on all devices and processes."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrobust.keys import key_of
from jaxrobust.processes import over_processes

Outputs = Any  # a pytree of arrays with the batch on the leading axis


def padded_indices(size: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Index batches of one length; the last repeats its first index. Yields (indices, valid)."""
    for start in range(0, size, batch_size):
        valid = min(batch_size, size - start)
        indices = np.full(batch_size, start, np.int32)
        indices[:valid] = np.arange(start, start + valid, dtype=np.int32)
        yield indices, valid


def batch_shape(size: int, batch_size: int) -> int:
    """The examples of a call: a multiple of the local devices, at least `batch_size`.

    Less where a process's share of the data is less.
    """
    share = -(-size // jax.process_count())
    devices = len(jax.local_devices())
    return -(-max(1, min(batch_size, share)) // devices) * devices


def example_keys(seed: int, attack: int, indices: np.ndarray) -> Array:
    """One key per example of (seed, attack, index in the data set): noise is the example's own,
    whatever the batch size, the order and the number of devices."""
    key = jax.random.fold_in(key_of(seed), attack)
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(indices))


def over_devices(batch: Any) -> Any:
    """The batch split over all local devices, which must divide it; computations follow it."""
    return _placed(batch, PartitionSpec("devices"))


def on_every_device(tree: Any) -> Any:
    """A copy of the tree's arrays on all local devices."""
    return _placed(tree, PartitionSpec())


def _placed(tree: Any, spec: PartitionSpec) -> Any:
    devices = jax.local_devices()
    if len(devices) == 1:
        return tree
    mesh = jax.make_mesh(
        (len(devices),), ("devices",), axis_types=(AxisType.Auto,), devices=devices
    )
    return jax.device_put(tree, NamedSharding(mesh, spec))


def map_batches(
    function: Callable[[Array, Array, Array], Outputs],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    attack: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda examples: None,
) -> Outputs:
    """`function(keys, images, labels)` over the data, outputs joined and unpadded, as NumPy.

    Args:
      function: jitted by the caller; outputs have the batch on the leading axis.
      images: `[n, h, w, c]`.
      labels: `[n]`.
      seed: of the keys.
      attack: number that tells this function's noise from another's.
      batch_size: examples per call, see `batch_shape`.
      advance: told the number of examples after each batch.
    """

    def work(job: tuple[np.ndarray, int]) -> Outputs:
        indices, valid = job
        batch = example_keys(seed, attack, indices), images[indices], labels[indices]
        out = jax.device_get(function(*over_devices(batch)))
        return jax.tree.map(lambda leaf: leaf[:valid], out)

    jobs = list(padded_indices(len(images), batch_shape(len(images), batch_size)))
    parts = over_processes(jobs, work, done=lambda job: advance(job[1]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
