"""DeepFool: step by step to the nearest boundary of the linearised network."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked, finite, where
from jaxrobust.attacks._nearest import (
    Nearest,
    Task,
    attacked,
    clipped,
    moved,
    none_attacked,
    number_of,
    reached,
    task_of,
)
from jaxrobust.attacks._norms import DUAL, column, norm_of
from jaxrobust.inputs import as_choice, as_count
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn, Norm

NORMS = ("l2", "linf")


class Walk(NamedTuple):
    """The loop's carry; per example except for the first leaf."""

    step: Array  # []
    delta: Array
    done: Array  # bool: the iterate is adversarial, and stays
    loss: Array  # margin there; of the first point where none is adversarial
    target: Array  # class of the boundary that the last step went to
    looks: Array  # int32: points that were looked at
    pulls: Array  # int32: backward passes


class _Boundary(NamedTuple):
    """The nearest boundary of the linearised network; per example."""

    distance: Array
    grad: Array  # divided by its dual norm
    target: Array


def deepfool(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm = "l2",
    steps: int = 100,
    overshoot: ArrayLike = 0.02,
) -> Attacked:
    r"""DeepFool: goes to the nearest linearised boundary until the class changes.

    .. math:: k = \arg\min_{k \ne y} \frac{|z_k - z_y|}{\|\nabla (z_k - z_y)\|_q}, \qquad
        x \leftarrow \mathrm{clip}(x + (1 + \text{overshoot})\, \rho_k\, d_k)

    with :math:`\rho_k` that quotient plus 1e-4 and :math:`d_k` the gradient divided by its norm in
    "l2", its sign in "linf". The first misclassified point is returned, which gives a quick upper
    estimate of the distance. All classes are considered, one after the other.

    A step costs one forward and `k - 1` backward passes; the loop ends when the last example is
    done.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; the attack draws nothing.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "l2" or "linf", over all values of an image. Static.
      steps: number of points that are evaluated, the clean image first; static.
      overshoot: relative length by which a step goes beyond the boundary, `[]` or `[b]`; may be
        traced.

    Returns:
      `Attacked`. `images` are the first misclassified images, or the clean ones where none was
      found; `distance` `[b]` is the norm of `perturbation` `[b, h, w, c]` (0 where the clean image
      is misclassified, inf where nothing was found); `success` is whether it is finite. `loss` is
      the margin of the returned image, `queries` `[b]` is the number of evaluated points, and
      `backwards` `[b]` the number of backward passes: `k - 1` at each correctly classified one.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.6)
      >>> found = attacks.deepfool(lambda x: logits_fn(x - 0.5), jax.random.key(0), images,
      ...     jnp.array([0]))
      >>> round(float(found.distance[0]), 3), int(found.queries[0])
      (0.204, 2)

    References:
      Moosavi-Dezfooli et al., DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks,
      2016 (arXiv:1511.04599), Algorithm 2, cut to the box after each step.
    """
    as_choice(norm, name="norm", choices=NORMS)
    as_count(steps, name="steps")
    task = task_of(logits_fn, key, images, labels)
    beyond = number_of(task, "overshoot", overshoot, low=0)
    if not len(task.images):
        nothing = none_attacked(task)
        none = nothing.success.astype(jnp.int32)
        return nothing._replace(queries=none, backwards=none)
    walk = walk_on(task, begin(task), norm=norm, steps=steps, overshoot=beyond)
    size = norm_of(moved(task, walk.delta), norm)
    found = Nearest(
        where(walk.done, walk.delta, jnp.zeros_like(walk.delta)),
        jnp.where(walk.done, size, jnp.inf),
        walk.loss,
    )
    return attacked(task, found)._replace(queries=walk.looks, backwards=walk.pulls)


def begin(task: Task) -> Walk:
    """At the clean images, which have not been evaluated."""
    batch = len(task.images)
    shape = jax.eval_shape(task.evaluate, task.images)
    return Walk(
        step=jnp.int32(0),
        delta=jnp.zeros_like(task.images),
        done=jnp.zeros(batch, bool),
        loss=jnp.zeros(batch, shape.dtype),
        target=task.labels,
        looks=jnp.zeros(batch, jnp.int32),
        pulls=jnp.zeros(batch, jnp.int32),
    )


def walk_on(task: Task, walk: Walk, *, norm: Norm, steps: int, overshoot: Array) -> Walk:
    """Up to `steps` steps; finished examples do not move and cost nothing."""

    def goes_on(walk: Walk) -> Array:
        return (walk.step < steps) & ~jnp.all(walk.done)

    return jax.lax.while_loop(
        goes_on, lambda walk: look_and_move(task, walk, norm=norm, overshoot=overshoot), walk
    )


def look_and_move(task: Task, walk: Walk, *, norm: Norm, overshoot: Array) -> Walk:
    """One step: where the iterate is not adversarial, across the nearest linearised boundary."""
    logits, pull = jax.vjp(task.evaluate, walk.delta)
    hit = reached(task, logits)
    done, told = walk.done | hit, ~walk.done & (hit | (walk.step == 0))
    near = _nearest_boundary(task, logits, pull, norm)
    way = near.grad if norm == "l2" else jnp.sign(near.grad)
    move = finite(way * column((1 + overshoot) * near.distance))
    return Walk(
        step=walk.step + 1,
        delta=where(done, walk.delta, clipped(task, walk.delta + move)),
        done=done,
        loss=jnp.where(told, margin(logits, task.labels), walk.loss),
        target=jnp.where(done, walk.target, near.target),
        looks=walk.looks + (~walk.done).astype(jnp.int32),
        pulls=walk.pulls + (~done).astype(jnp.int32) * (logits.shape[-1] - 1),
    )


def toward(logits: Array, classes: Array, labels: Array) -> Array:
    """`[b, k]`: the derivative of `z_class - z_label` in the logits; 0 for equal ones."""
    every = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None]
    ahead = (every == classes[:, None]).astype(logits.dtype)
    return ahead - (every == labels[:, None]).astype(logits.dtype)


def _nearest_boundary(task: Task, logits: Array, pull: Callable, norm: Norm) -> _Boundary:
    """Over all classes except the label; ties go to the first."""
    dtype = task.images.dtype

    def consider(nearest: _Boundary, classes: Array) -> tuple[_Boundary, None]:
        ahead = toward(logits, classes, task.labels)
        value = jnp.sum(jnp.where(ahead == 0, 0, ahead * logits), -1)
        grad = finite(pull(ahead)[0])
        size = jnp.maximum(norm_of(grad, DUAL[norm]), 1e-6)
        distance = finite(jnp.abs(value)).astype(dtype) / size + 1e-4
        new = _Boundary(distance, grad / column(size), classes)
        return where(distance < nearest.distance, new, nearest), None

    far = jnp.full(len(task.images), jnp.inf, dtype)
    others = jnp.arange(logits.shape[-1] - 1, dtype=task.labels.dtype)[:, None]
    others = others + (others >= task.labels[None]).astype(others.dtype)
    # One after the other: on CPU a vmapped backward pass takes more than twice as long, and the
    # gradients of a thousand classes fit in no memory.
    none = _Boundary(far, jnp.zeros_like(task.images), task.labels)
    return jax.lax.scan(consider, none, others)[0]
