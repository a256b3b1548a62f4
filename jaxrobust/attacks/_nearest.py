"""Shared by minimum-norm attacks: their task, and the nearest adversarial perturbation so far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._attacked import Attacked, finite, where
from jaxrobust.attacks._norms import norm_of
from jaxrobust.inputs import InputError, as_batch, as_labels, as_logits, as_number, as_per_example
from jaxrobust.keys import per_example_keys
from jaxrobust.losses import margin
from jaxrobust.precision import shown, widened
from jaxrobust.typing import AnyNorm, LogitsFn
from jaxrobust.verdicts import hard_labels, misclassified, predicted


class Task(NamedTuple):
    """The batch under attack, and the network as a function of perturbations."""

    clean: Array  # [b, h, w, c] as given
    images: Array  # the same in float32 or better, in which everything is computed
    labels: Array  # [b]
    targets: Array | None  # [b]
    keys: Array  # [b]
    evaluate: Callable[[Array], Array]  # perturbations [b, h, w, c] -> logits [b, k]


class Nearest(NamedTuple):
    """The smallest adversarial perturbation found so far; per example."""

    delta: Array  # 0 where there is none
    distance: Array  # inf where there is none
    loss: Array  # margin there; of the clean image where there is none


def task_of(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    targets: ArrayLike | None = None,
) -> Task:
    """Checks the arguments that all minimum-norm attacks take."""
    clean, labels = as_batch(images, labels)
    hard, wide = hard_labels(labels), widened(clean)
    if targets is not None:
        targets = jnp.asarray(as_labels(targets, batch=len(clean), name="targets"))
    prepared = network(logits_fn, clean) if len(clean) else logits_fn

    def evaluate(delta: Array) -> Array:
        logits = as_logits(checked_logits(prepared(shown(wide + delta, clean)), hard), "logits")
        if targets is not None:
            as_labels(targets, batch=len(clean), classes=logits.shape[-1], name="targets")
        return logits

    return Task(clean, wide, hard, targets, per_example_keys(key, len(clean)), evaluate)


def number_of(task: Task, name: str, value: ArrayLike, **bounds: Any) -> Array:
    """A checked hyper-parameter, one for all or one each, as `[b]` in the images' precision."""
    checked = as_per_example(value, name=name, batch=len(task.images), **bounds)
    return jnp.broadcast_to(jnp.asarray(checked, task.images.dtype), (len(task.images),))


def start_of(task: Task, start: ArrayLike) -> Array:
    """A checked initial perturbation, clipped to the box."""
    delta = jnp.asarray(as_number(start, name="start"))
    if delta.shape != task.images.shape:
        raise InputError(
            f"start must be a perturbation of the images, here {task.images.shape}, got shape "
            f"{delta.shape}"
        )
    return clipped(task, delta.astype(task.images.dtype))


def clipped(task: Task, delta: Array) -> Array:
    """The perturbation of the image clipped to the box."""
    return jnp.clip(task.images + delta, 0, 1) - task.images


def moved(task: Task, delta: Array) -> Array:
    """The perturbation of the images that the network sees; rounded only in half precision."""
    if task.clean.dtype == task.images.dtype:
        return delta
    return shown(task.images + delta, task.clean).astype(delta.dtype) - task.images


def gap(task: Task, logits: Array) -> Array:
    """`[b]`: by how much the logits miss the goal; negative once it is reached."""
    if task.targets is None:
        return -margin(logits, task.labels)
    return margin(logits, task.targets)


def reached(task: Task, logits: Array) -> Array:
    """`[b]` bool: misclassified; with targets, classified as the target."""
    if task.targets is None:
        return misclassified(logits, task.labels)
    return predicted(logits) == task.targets


def follow(
    task: Task, delta: Array, objective: Callable[[Array], Array]
) -> tuple[Array, Array, Array]:
    """Logits `[b, k]`, the objective's values `[b]` and its gradients, both of them finite."""

    def total(delta: Array) -> tuple[Array, tuple[Array, Array]]:
        logits = task.evaluate(delta)
        values = objective(logits)
        return jnp.sum(values), (logits, values)

    grad, (logits, values) = jax.grad(total, has_aux=True)(delta)
    return logits, finite(values.astype(delta.dtype)), finite(grad)


def nothing_found(task: Task) -> Nearest:
    """The state before the first query."""
    shape = jax.eval_shape(task.evaluate, task.images)
    far = jnp.full(len(task.images), jnp.inf, task.images.dtype)
    return Nearest(jnp.zeros_like(task.images), far, jnp.zeros(len(far), shape.dtype))


def nearer(
    nearest: Nearest, delta: Array, size: Array, hit: Array, loss: Array, below: ArrayLike = jnp.inf
) -> Nearest:
    """The nearest perturbation after evaluating `delta`, whose norms are `size` `[b]`.

    Args:
      nearest: the nearest perturbations so far.
      delta: perturbations `[b, h, w, c]`.
      size: their norms `[b]`.
      hit: `[b]`, which of them reach the goal.
      loss: `[b]`, the margins there.
      below: norms of at least this do not count.

    Returns:
      The nearest perturbations; only strictly smaller ones replace earlier ones.
    """
    still = ~jnp.any(delta != 0, (1, 2, 3))
    # A squared value can underflow to a norm of 0, which only the clean image has.
    better = hit & (size < jnp.minimum(nearest.distance, below)) & ((size > 0) | still)
    told = better | (still & jnp.isinf(nearest.distance))
    found = where(better, Nearest(delta, size, loss), nearest)
    return found._replace(loss=where(told, loss, nearest.loss))


def look_at_clean(task: Task, norm: AnyNorm) -> Nearest:
    """The state after evaluating the clean images: those that reach the goal are at distance 0."""
    delta = jnp.zeros_like(task.images)
    logits = task.evaluate(delta)
    seen = reached(task, logits), margin(logits, task.labels)
    return nearer(nothing_found(task), delta, norm_of(delta, norm), *seen)


def attacked(task: Task, nearest: Nearest) -> Attacked:
    """The result; nothing is differentiated through it."""
    images = jnp.clip(task.images + nearest.delta, 0, 1)
    return jax.lax.stop_gradient(
        Attacked(
            images=shown(images, task.clean),
            success=jnp.isfinite(nearest.distance),
            loss=nearest.loss,
            perturbation=moved(task, nearest.delta),
            distance=nearest.distance,
        )
    )


def none_attacked(task: Task) -> Attacked:
    """The result for an empty batch."""
    zeros = jnp.zeros(0, task.images.dtype)
    return Attacked(task.clean, zeros.astype(bool), zeros, perturbation=task.images, distance=zeros)


def cosine(step: Array, steps: int, first: Array, last: Array) -> Array:
    """A schedule along half a cosine: `first` at step 0, `last` at step `steps`."""
    share = (1 + jnp.cos(jnp.pi * step.astype(first.dtype) / steps)) / 2
    return last + (first - last) * share
