"""A network as attacks and evaluations call it: constant, checked, fast on CPU."""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import Array

from jaxrobust.convolutions import fast_on_cpu
from jaxrobust.inputs import InputError, as_labels, as_network_logits, evaluation_mode, is_signed
from jaxrobust.typing import Loss


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
    _check_function(logits_fn)

    def checked(x: Array) -> Array:
        return as_network_logits(logits_fn(x), batch=len(x), signed=True)

    return prepare(checked, images)


def _check_function(logits_fn: Any) -> None:
    if not callable(logits_fn):
        raise InputError(
            "logits_fn must be a function, images [b, h, w, c] -> logits [b, k], such as "
            f"models.logits_fn(model, variables); got {logits_fn!r:.80}"
        )


def judging(logits_fn: Any, loss: Loss, labels: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Images -> (losses `[b]`, logits `[b, k]`), as attacks follow the one and count the other.

    A logits function may have a method `judge(loss, images, labels)` that returns the two: it then
    decides what its attackers differentiate (a surrogate's loss, a detector's output), while
    success is counted on its logits.
    """
    _check_function(logits_fn)
    own = getattr(logits_fn, "judge", None)

    def judge(images: Array) -> tuple[Array, Array]:
        if own is not None:
            losses, logits = own(loss, images, labels)
            return as_losses(losses, len(images)), checked_logits(logits, labels)
        logits = checked_logits(logits_fn(images), labels)
        return losses_of(loss, logits, labels), logits

    return judge


def checked_logits(logits: Any, labels: Array) -> Array:
    """Logits `[b, k]` of which the labels are classes; `[b, 1]` for labels -1 and +1."""
    signed = labels.ndim == 1 and is_signed(labels)
    logits = as_network_logits(logits, batch=len(labels), signed=signed)
    if logits.shape[1] > 1:
        as_labels(labels, batch=len(labels), classes=logits.shape[1], soft=True)
    return logits


def losses_of(loss: Loss, logits: Array, labels: Array) -> Array:
    """A loss of logits `[b, k]`, one number per example `[b]`."""
    if not callable(loss):
        raise InputError(
            "loss must be a function, (logits [b, k], labels) -> [b], such as losses.margin; "
            f"got {loss!r:.80}"
        )
    return as_losses(loss(logits, labels), len(logits))


def as_losses(losses: Any, batch: int) -> Array:
    """What a loss returned, if it is one number per example."""
    if jnp.shape(losses) != (batch,):
        raise InputError(
            f"loss must return one number per example, [b], here [{batch}], got shape "
            f"{jnp.shape(losses)}; leave the mean to the attack"
        )
    return losses
