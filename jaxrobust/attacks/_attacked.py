"""What every attack takes and returns."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.convolutions import fast_on_cpu
from jaxrobust.inputs import (
    InputError,
    as_images,
    as_labels,
    as_network_logits,
    evaluation_mode,
    is_signed,
)

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
    with evaluation_mode():
        # The lambda: JAX hashes the function, and a callable pytree need not be hashable. Not
        # `jax.closure_convert`, whose cache keeps what was closed over.
        closed, out = jax.make_jaxpr(lambda *args: logits_fn(*args), return_shape=True)(*examples)
    constants = [
        jax.lax.stop_gradient(c) if isinstance(c, jax.core.Tracer) else c for c in closed.consts
    ]
    flat = jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, constants))

    def call(*args: Any) -> Any:
        return jax.tree.unflatten(jax.tree.structure(out), flat(*jax.tree.leaves(args)))

    return fast_on_cpu(call)


def network(logits_fn: Callable, images: Array) -> Callable[[Array], Array]:
    """`prepare` of a network whose result is checked: images -> logits `[b, k]`."""

    def checked(x: Array) -> Array:
        return as_network_logits(logits_fn(x), batch=len(x), signed=True)

    return prepare(checked, images)


def judging(logits_fn: Any, loss: Loss, labels: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Images -> (losses `[b]`, logits `[b, k]`), as attacks follow the one and count the other.

    A logits function may have a method `judge(loss, images, labels)` that returns the two: it then
    decides what its attackers differentiate (a surrogate's loss, a detector's output), while
    success is counted on its logits.
    """
    own = getattr(logits_fn, "judge", None)

    def judge(images: Array) -> tuple[Array, Array]:
        if own is not None:
            losses, logits = own(loss, images, labels)
            return as_losses(losses, len(images)), checked_logits(logits, labels)
        logits = checked_logits(logits_fn(images), labels)
        return as_losses(loss(logits, labels), len(images)), logits

    return judge


def checked_logits(logits: Any, labels: Array) -> Array:
    """Logits `[b, k]` of which the labels are classes; `[b, 1]` for labels -1 and +1."""
    signed = labels.ndim == 1 and is_signed(labels)
    logits = as_network_logits(logits, batch=len(labels), signed=signed)
    if logits.shape[1] > 1:
        as_labels(labels, batch=len(labels), classes=logits.shape[1], soft=True)
    return logits


def as_losses(losses: Any, batch: int) -> Array:
    """What a loss returned, if it is one number per example."""
    if jnp.shape(losses) != (batch,):
        raise InputError(
            f"loss must return one number per example, [b], here [{batch}], got shape "
            f"{jnp.shape(losses)}; leave the mean to the attack"
        )
    return losses


def checked_batch(images: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Images `[b, h, w, c]` and labels `[b]` (or `[b, k]` probabilities) as arrays."""
    checked = jnp.asarray(as_images(images))
    return checked, jnp.asarray(as_labels(labels, batch=len(checked), soft=True, signed=True))


def nothing_attacked(images: Array) -> Attacked:
    """The result of an attack on no images."""
    return Attacked(images, jnp.zeros(0, bool), jnp.zeros(0))


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


def hard_labels(labels: Array) -> Array:
    """Class indices `[b]` of hard or soft labels."""
    return labels if labels.ndim == 1 else jnp.argmax(labels, -1)


def predicted(logits: Array) -> Array:
    """Class `[b]` int32 of the largest logit, the first of equals; -1, no class, for NaN logits."""
    return jnp.where(has_nan(logits), -1, jnp.argmax(logits, -1).astype(jnp.int32))


def has_nan(logits: Array) -> Array:
    """`[b]` bool."""
    return jnp.any(jnp.isnan(logits), -1)


def misclassified(logits: Array, labels: Array) -> Array:
    """`[b]` bool. Ties go to the first class; NaN logits are never right, for no label.

    Of one logit the sign decides, for labels -1 and +1.
    """
    hard = hard_labels(labels).astype(jnp.int32)
    if logits.shape[-1] == 1:
        return ~(logits[..., 0] * hard.astype(logits.dtype) > 0)
    return (predicted(logits) != hard) | has_nan(logits)


def where(mask: Array, new: Any, old: Any) -> Any:
    """Per example: the leaves of `new` where `mask` `[b]`, of `old` elsewhere."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def finite(grads: Any) -> Any:
    """Gradients that cannot poison an iterate: NaN moves nothing, infinities are clipped."""
    return jax.tree.map(jnp.nan_to_num, grads)
