"""Which examples a step sees: a function of (seed, step) alone."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError, as_count


def epoch_order(key: Array, epoch: Array | int, *, size: int, batch_size: int) -> Array:
    """The example indices of all batches of one epoch.

    Every epoch is a fresh permutation; the last `size % batch_size` examples of it are left
    out, so that all batches have one shape.

    Args:
      key: PRNG key of the run's data order.
      epoch: 0-based, may be traced.
      size: number of training examples.
      batch_size: examples per step, over all devices.

    Returns:
      `[size // batch_size, batch_size]` int32.

    Raises:
      ValueError: if a batch is larger than the data set.

    Example:
      >>> import jax
      >>> from jaxrobust import data
      >>> data.epoch_order(jax.random.key(0), 3, size=10, batch_size=4).shape
      (2, 4)
    """
    size, batch_size = checked_batch(size, batch_size)
    steps = size // batch_size
    order = jax.random.permutation(jax.random.fold_in(key, epoch), size)
    return order[: steps * batch_size].reshape(steps, batch_size).astype(jnp.int32)


def checked_batch(size: int, batch_size: int) -> tuple[int, int]:
    """The numbers of training examples and of examples in a batch.

    Raises:
      InputError: if one is no integer of at least 1, or a batch is larger than the data set.
    """
    size, batch_size = as_count(size, name="size"), as_count(batch_size, name="batch_size")
    if batch_size > size:
        raise InputError(
            f"batch_size must be between 1 and the {size} training examples, got {batch_size}"
        )
    return size, batch_size
