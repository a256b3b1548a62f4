"""PMA: sign steps on the parts of the probability margin, then on the margin itself."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.attacks._linf_ball import inside, uniform, uphill
from jaxrobust.inputs import (
    InputError,
    as_batch,
    as_count,
    as_logits,
    as_number,
    as_radius,
    at_label,
    pick,
)
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import probability_margin
from jaxrobust.precision import shown, widened
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import hard_labels, misclassified

RUNS = 2  # one lowers the label's probability first, the other raises the best wrong class's


class PMAState(NamedTuple):
    """The progress of the attack; every leaf is per example.

    Attributes:
      images: `[b, h, w, c]`, the misclassified image, else the latest one.
      loss: `[b]`, its probability margin.
      success: `[b]` bool, it is misclassified.
      queries: `[b]` int32, forward passes used by the example.
      backwards: `[b]` int32, backward passes used by the example.
    """

    images: Array
    loss: Array
    success: Array
    queries: Array
    backwards: Array


class Problem(NamedTuple):
    """What does not change during the attack."""

    logits_fn: LogitsFn
    clean: Array  # as the caller gave them
    images: Array  # in the precision of the computation
    labels: Array
    eps: Array  # [b]
    steps: int


def pma(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    eps: ArrayLike,
    steps: int = 100,
    start: ArrayLike | None = None,
) -> Attacked:
    r"""The probability-margin attack (PMA): two l_inf runs on the parts of the margin.

    In half of their steps, the first run lowers the label's probability and the second raises the
    largest other probability. In the other half, both raise the margin of the probabilities. Every
    visited point counts, and an example stops at its first misclassified one. The cost is at most
    `2 steps` forward and backward passes, and three more forward passes. If a network's softmax
    saturates in float32, this attack sees no gradient; `attacks.cr` and `attacks.apgd` on the
    margin are not affected.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, k >= 2, parameters closed over. If it has
        a method `judge`, as `mixing.guided` does, that method determines what is differentiated.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      eps: l_inf radius in image units, `[]` or `[b]`; may be traced.
      steps: number of steps of each run, static.
      start: perturbations `[2, b, h, w, c]` from which the runs start, added unchanged. A start
        outside ball and box is used but cannot count as a success. Default: uniform in the ball,
        clipped to the box.

    Returns:
      `Attacked`. `images`: the first misclassified image, or the last one visited. `loss`: the
      probability margin there. A clean error is a success with the clean image.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return (x.mean(axis=(1, 2)) - 0.4) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((2, 4, 4, 1), 0.5)
      >>> found = attacks.pma(logits_fn, jax.random.key(0), images, jnp.array([0, 0]),
      ...     eps=jnp.array([0.05, 0.2]), steps=10)
      >>> found.success.tolist()
      [False, True]

    References:
      arXiv:2411.15210 (margin decomposition with the probability margin). Their starts leave the
      box, and some of their images with them; here neither does.
    """
    images, labels = as_batch(images, labels)
    keys = per_example_keys(key, len(images))
    as_count(steps, name="steps")
    starts = _starts(start, images)
    if not len(images):
        return nothing_attacked(images)
    problem = problem_of(logits_fn, images, labels, eps=eps, steps=steps)

    def run(number: Array, state: PMAState) -> PMAState:
        first = None if starts is None else starts[number]
        return pma_run(problem, state, keys, number, start=first)

    state = jax.lax.fori_loop(0, RUNS, run, pma_begin(problem))
    return pma_end(images, state)


def problem_of(
    logits_fn: LogitsFn, images: Array, labels: Array, *, eps: ArrayLike, steps: int
) -> Problem:
    """The checked arguments, constants of the attack: no gradient flows through any."""
    radius = as_radius(eps, batch=len(images), largest=1)
    # Images that a compiled program holds as constants would let XLA re-associate `(x + d) - x`.
    wide = jax.lax.optimization_barrier(jax.lax.stop_gradient(widened(images)))
    radius = jnp.broadcast_to(radius.astype(wide.dtype), (len(images),))
    radius, labels = jax.lax.stop_gradient((radius, hard_labels(labels)))
    return Problem(logits_fn, jax.lax.stop_gradient(images), wide, labels, radius, steps)


def _starts(start: ArrayLike | None, images: Array) -> Array | None:
    """The runs' first perturbations, if they were given."""
    if start is None:
        return None
    as_number(start, name="start")
    starts = jax.lax.stop_gradient(jnp.asarray(start, widened(images).dtype))
    if starts.shape != (RUNS, *images.shape):
        raise InputError(f"start must have shape {(RUNS, *images.shape)}, got {starts.shape}")
    return starts


def pma_begin(problem: Problem) -> PMAState:
    """The verdict on the clean images."""
    logits = _forward(problem, problem.images)
    once = jnp.ones(len(problem.labels), jnp.int32)
    return PMAState(
        images=problem.images,
        loss=probability_margin(logits, problem.labels),
        success=misclassified(logits, problem.labels),
        queries=once,
        backwards=jnp.zeros_like(once),
    )


def pma_run(
    problem: Problem,
    state: PMAState,
    keys: Array,
    number: ArrayLike,
    *,
    start: Array | None = None,
) -> PMAState:
    """Run 0 or 1, on the examples that are not yet misclassified."""
    if start is None:
        noise = uniform(fold_keys(keys, number), problem.images)
        x = inside(problem.images + _each(problem.eps) * noise, problem.images, problem.eps)
    else:
        x = problem.images + start

    def unfinished(carry: tuple[Array, Array, PMAState]) -> Array:
        return (carry[0] < problem.steps) & ~jnp.all(carry[2].success)

    def step(carry: tuple[Array, Array, PMAState]) -> tuple[Array, Array, PMAState]:
        index, x, state = carry
        x, state = pma_step(problem, x, state, index, number)
        return index + 1, x, state

    zero = jnp.zeros((), jnp.int32)
    _, x, state = jax.lax.while_loop(unfinished, step, (zero, x, state))
    return _judged(problem, x, state, _forward(problem, x), backwards=0)


def pma_step(
    problem: Problem, x: Array, state: PMAState, index: ArrayLike, number: ArrayLike
) -> tuple[Array, PMAState]:
    """Evaluates `x`, records it, and returns the next point and the state."""
    weights = objective(index, number, problem.steps, x.dtype)

    def loss(logits: Array, labels: Array) -> Array:
        wide = as_logits(logits, "logits", classes=2)
        own = pick(*at_label(jax.nn.softmax(wide), labels))
        other = probability_margin(wide, labels) + own
        return weights[0].astype(own.dtype) * own + weights[1].astype(own.dtype) * other

    logits, grads = uphill(problem.logits_fn, loss, x, problem.clean, problem.labels)
    state = _judged(problem, x, state, checked_logits(logits, problem.labels), backwards=1)
    size = step_size(index, problem.steps, x.dtype) * _each(problem.eps)
    return inside(x + size * jnp.sign(grads), problem.images, problem.eps), state


def objective(index: ArrayLike, number: ArrayLike, steps: int, dtype: jnp.dtype) -> Array:
    """`[2]`: the weights of the label's and of the largest other probability at a step of a run.

    The first step goes up the label's probability, away from the error, as published.
    """
    half = 2 * jnp.asarray(index) >= steps
    first = jnp.where(jnp.asarray(number) == 0, jnp.asarray([-1, 0]), jnp.asarray([0, 1]))
    later = jnp.where(half, jnp.asarray([-1, 1]), first)
    return jnp.where(jnp.asarray(index) == 0, jnp.asarray([1, 0]), later).astype(dtype)


def step_size(index: ArrayLike, steps: int, dtype: jnp.dtype) -> Array:
    """Two cosines that start at 2, over half of the steps each; in units of eps."""
    index, half = jnp.asarray(index, dtype), steps / 2
    passed = jnp.where(index > half, index - half - 1, index - 1)
    return 1 + jnp.cos(math.pi * passed / (steps - half))


def _judged(
    problem: Problem, x: Array, state: PMAState, logits: Array, *, backwards: int
) -> PMAState:
    """The state with the verdict on `x`, for examples that were not finished before."""
    off = jnp.abs(x - inside(x, problem.images, problem.eps)).max((1, 2, 3))
    wrong = misclassified(logits, problem.labels) & (off <= 4 * jnp.finfo(x.dtype).eps)
    loss = probability_margin(logits, problem.labels)
    going = (~state.success).astype(jnp.int32)
    kept, loss = where(state.success, (state.images, state.loss), (x, loss))
    return PMAState(
        images=kept,
        loss=loss,
        success=state.success | wrong,
        queries=state.queries + going,
        backwards=state.backwards + backwards * going,
    )


def pma_end(clean: Array, state: PMAState) -> Attacked:
    """The result, in the precision of the clean images."""
    found = shown(state.images, clean)
    passes = {"queries": state.queries, "backwards": state.backwards}
    return jax.lax.stop_gradient(Attacked(found, state.success, state.loss, **passes))


def _forward(problem: Problem, x: Array) -> Array:
    evaluate = network(problem.logits_fn, problem.clean)
    logits = checked_logits(evaluate(shown(x, problem.clean)), problem.labels)
    return as_logits(logits, "logits", classes=2)


def _each(values: Array) -> Array:
    return values[:, None, None, None]
