"""PRNG keys of the library's own draws: always threefry, whatever JAX's default generator is.

Only threefry's numbers depend on the key alone: with the "rbg" generator, noise that is drawn for a
batch depends on the batch's size.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError

GENERATOR = "threefry2x32"


def key_of(seed: ArrayLike) -> Array:
    """The key of a seed.

    Args:
      seed: an integer; may be traced.

    Returns:
      A typed key `[]`.

    Example:
      >>> import jax
      >>> from jaxrobust.keys import key_of
      >>> bool(jax.random.bits(key_of(3)) == jax.random.bits(key_of(3)))
      True
    """
    return jax.random.key(seed, impl=GENERATOR)


def key_of_data(data: Array) -> Array:
    """The key with the given raw data, as checkpoints keep it.

    Args:
      data: `[2]` uint32, of `jax.random.key_data`.

    Returns:
      A typed key `[]`.

    Example:
      >>> import jax
      >>> from jaxrobust.keys import key_of, key_of_data
      >>> data = jax.random.key_data(key_of(3))
      >>> bool(jax.random.bits(key_of_data(data)) == jax.random.bits(key_of(3)))
      True
    """
    return jax.random.wrap_key_data(data, impl=GENERATOR)


def per_example_keys(key: Array, batch_size: int) -> Array:
    """Keys `[b]`: of one key by folding in the position, or `key` itself if it is a batch.

    An evaluation passes keys folded with the index in the data set, so that the noise of an
    example depends on neither batch size, nor order, nor device count.
    """
    dtype = getattr(key, "dtype", np.dtype(object))
    if dtype == jnp.uint32:  # a key of the old kind
        key = jax.random.wrap_key_data(key)
    elif not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise InputError(f"key must be a PRNG key, such as jax.random.key(0), got {key!r}")
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    if key.shape != (batch_size,):
        raise InputError(
            f"key must be one key or one per example, here [{batch_size}], got shape {key.shape}"
        )
    return key


def fold_keys(keys: Array, number: ArrayLike) -> Array:
    """Keys `[b]` with the same number folded into each."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)
