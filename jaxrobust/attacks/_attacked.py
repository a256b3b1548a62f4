"""What every attack takes and returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.convolutions import fast_on_cpu

LogitsFn = Callable[[Array], Array]  # images [b, h, w, c] -> logits [b, k]
Loss = Callable[[Array, Array], Array]  # (logits [b, k], labels) -> [b], maximised


class Attacked(NamedTuple):
    """The result of an attack on a batch.

    Attributes:
      images: `[b, h, w, c]` in [0, 1]; the adversarial images, inside the threat's set.
      success: `[b]` bool; the returned image is misclassified.
      loss: `[b]`; the attack's loss at the returned image.
      kappa: `[b]` int32; how many of the visited iterates before the last were classified
        correctly (GAIRAT's measure), or `None` from attacks that do not count.
      perturbation: the threat's own description of the returned images (a pytree), or `None`.
      distance: `[b]`; norm of the smallest perturbation found, from minimum-norm attacks only.
      state: of a stateful model after the attack's forward passes, or `None`.
    """

    images: Array
    success: Array
    loss: Array
    kappa: Array | None = None
    perturbation: Any = None
    distance: Array | None = None
    state: Any = None


def prepare(logits_fn: Callable, *examples: Any) -> Callable:
    """`logits_fn` as attacks run it: constant in its parameters, fast on CPU.

    Without the stop_gradient an attack inside a differentiated training loss would carry
    tangents of all parameters through its loop. `examples` are arguments as it will get them.
    """
    # The lambda: JAX hashes the function, and a callable pytree need not be hashable.
    converted, captured = jax.closure_convert(lambda *args: logits_fn(*args), *examples)
    constants = jax.lax.stop_gradient(captured)
    return fast_on_cpu(lambda *args: converted(*args, *constants))


def judging(logits_fn: Any, loss: Loss, labels: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Images -> (losses `[b]`, logits `[b, k]`), as attacks follow the one and count the other.

    A logits function may have a method `judge(loss, images, labels)` that returns the two: it then
    decides what its attackers differentiate (a surrogate's loss, a detector's output), while
    success is counted on its logits.
    """
    own = getattr(logits_fn, "judge", None)
    if own is not None:
        return lambda images: own(loss, images, labels)

    def judge(images: Array) -> tuple[Array, Array]:
        logits = logits_fn(images)
        return loss(logits, labels), logits

    return judge


def checked_batch(images: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Images `[b, h, w, c]` and labels `[b]` (or `[b, k]` probabilities) as arrays."""
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images must be floating point in [0, 1], got {images.dtype}; divide uint8 by 255"
        )
    chex.assert_rank(images, 4, custom_message="images must be [b, h, w, c]")
    chex.assert_rank(labels, {1, 2}, custom_message="labels must be [b], or soft [b, k]")
    chex.assert_equal_shape_prefix(
        [images, labels], 1, custom_message="images and labels must have the same batch size"
    )
    return images, labels


def per_example_keys(key: Array, batch_size: int) -> Array:
    """Keys `[b]`: of one key by folding in the position, or `key` itself if it is a batch.

    An evaluation passes keys folded with the index in the data set, so that the noise of an
    example depends on neither batch size, nor order, nor device count.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch_size))
    chex.assert_shape(key, (batch_size,), custom_message="key must be one key or one per example")
    return key


def fold_keys(keys: Array, number: ArrayLike) -> Array:
    """Keys `[b]` with the same number folded into each."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def hard_labels(labels: Array) -> Array:
    """Class indices `[b]` of hard or soft labels."""
    return labels if labels.ndim == 1 else jnp.argmax(labels, -1)


def misclassified(logits: Array, labels: Array) -> Array:
    """`[b]` bool. Ties go to the first class; the argmax of NaN logits is a NaN's index."""
    hard = hard_labels(labels)
    return jnp.argmax(logits, -1).astype(hard.dtype) != hard


def where(mask: Array, new: Any, old: Any) -> Any:
    """Per example: the leaves of `new` where `mask` `[b]`, of `old` elsewhere."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def finite(grads: Any) -> Any:
    """Gradients that cannot poison an iterate: NaN moves nothing, infinities are clipped."""
    return jax.tree.map(jnp.nan_to_num, grads)
