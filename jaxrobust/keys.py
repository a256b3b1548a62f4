"""PRNG keys of the library's own draws: always threefry, whatever JAX's default generator is.

Only threefry's numbers depend on the key alone: with the "rbg" generator, noise that is drawn for a
batch depends on the batch's size.
"""

import jax
from jax import Array
from jax.typing import ArrayLike

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
