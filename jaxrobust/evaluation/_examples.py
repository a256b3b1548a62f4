"""Runs a function over examples in batches of few shapes, on all devices and processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrobust.inputs import InputError, as_count
from jaxrobust.processes import over_processes

Outputs = Any  # a pytree of arrays with the batch on the leading axis
Bucket = tuple[int, int, int]  # first example, number of examples, batch shape


def over_examples(
    function: Callable[..., Outputs],
    key: Array | None,
    indices: np.ndarray,
    *arrays: Any,
    shapes: Sequence[int],
    done: Callable[[int], None] = lambda count: None,
) -> Outputs:
    """Calls a function on all examples in padded batches; results do not depend on the batching.

    Batches are split over the local devices. With several processes, all of them must make the same
    call; they share the batches, and each gets every result. The noise of an example depends only
    on its key, which is folded from its index.

    Args:
      function: `(keys [b], *arrays [b, ...])` -> a pytree of arrays `[b, ...]`; compiled by the
        caller. No output may depend on the rest of the batch.
      key: the key that indices are folded into; `None` to call the function without keys.
      indices: `[n]` integers, n >= 1, that distinguish the examples' keys, such as their indices in
        the data set.
      *arrays: pytrees of arrays `[n, ...]`.
      shapes: batch sizes, rounded up to a multiple of the local devices. The largest is used as
        long as it is mostly filled, the others for the remaining examples. Each is compiled once.
      done: called with the number of examples after each batch.

    Returns:
      The outputs `[n, ...]` of all examples in their order, as NumPy arrays.

    Raises:
      ValueError: if there are no examples, or a batch size is not a positive integer.

    Example:
      >>> import jax, numpy as np
      >>> from jaxrobust import evaluation
      >>> def noisy(keys, x): return x + jax.vmap(jax.random.uniform)(keys)
      >>> zeros = np.zeros(10, np.float32)
      >>> few, many = (evaluation.over_examples(noisy, jax.random.key(0), np.arange(10), zeros,
      ...     shapes=[size]) for size in (3, 16))
      >>> bool((few == many).all())
      True
    """
    indices = np.asarray(indices, np.int32)
    if not len(indices):
        raise InputError("indices must contain at least one example, got none")
    sizes = sorted({_divisible(as_count(size, name="shapes")) for size in shapes}, reverse=True)

    def work(bucket: Bucket) -> Outputs:
        start, count, shape = bucket
        rows = np.full(shape, start)
        rows[:count] = np.arange(start, start + count)
        batch = jax.tree.map(lambda leaf: leaf[rows], arrays)
        keys = () if key is None else (_folded(key, indices[rows]),)
        out = jax.device_get(function(*over_devices((*keys, *batch))))
        return jax.tree.map(lambda leaf: leaf[:count], out)

    jobs = list(buckets(len(indices), sizes, jax.process_count()))
    parts = over_processes(jobs, work, done=lambda bucket: done(bucket[1]))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


@jax.jit
def _folded(key: Array, indices: Array) -> Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def _divisible(size: int) -> int:
    """The next multiple of the local devices."""
    devices = len(jax.local_devices())
    return -(-size // devices) * devices


def one_shape(size: int, batch_size: int) -> list[int]:
    """The shape of all batches: `batch_size`, or less if a process's share of `size` is smaller."""
    share = -(-size // jax.process_count())
    return [_divisible(max(1, min(batch_size, share)))]


def bucket_sizes(batch_size: int, devices: int) -> list[int]:
    """Three batch shapes, each a multiple of the device count, for shrinking pools."""
    sizes = (batch_size, batch_size // 4, batch_size // 16)
    return sorted({max(devices, -(-max(s, 8) // devices) * devices) for s in sizes}, reverse=True)


def buckets(size: int, sizes: list[int], processes: int = 1) -> Iterator[Bucket]:
    """Covers `size` examples by batches: yields (start, number of examples, batch shape).

    A shape is used if at most half of it is padding, also within the share of each process;
    otherwise a smaller one is filled first.
    """
    start, share = 0, -(-size // processes)
    while start < size:
        left = size - start
        fitting = [s for s in sizes if s < 2 * min(left, share) or s == sizes[-1]]
        shape = max(fitting) if left > min(fitting) else sizes[-1]
        count = min(left, shape)
        yield start, count, shape
        start += count


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
