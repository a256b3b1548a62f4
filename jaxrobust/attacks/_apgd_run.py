"""One run of Auto-PGD: a single compiled loop, with one model pass in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.attacks._apgd_checkpoints import (
    CheckpointSteps,
    checkpoints,
    rounded_inward,
)
from jaxrobust.attacks._apgd_l1 import SparseSteps, radius_stages, sparsity_checks
from jaxrobust.attacks._attacked import Loss, finite, fold_keys, misclassified, where

Steps = CheckpointSteps | SparseSteps


class Problem(NamedTuple):
    """What does not change during an attack."""

    logits_fn: Callable[[Array, Array], Array]  # images, keys [b] -> logits
    loss: Loss
    images: Array  # in the precision of the computation
    labels: Array
    eps: Array  # [b]
    norm: str
    dtype: Any  # the caller's: what the model sees and the attack returns
    steps: int
    eps_schedule: bool
    eot: int
    unroll: int


class Row(NamedTuple):
    """What an iteration needs to know; arrays `[T + 1]`, or `[T + 3]` with a radius schedule.

    The start of a run is an iteration too: the model is compiled once, not once for the start
    and once for the loop.
    """

    number: Any
    begins: Any  # this iteration evaluates the start of a run
    radius: Any  # factor of eps
    check: Any  # of `CheckpointSteps` or `SparseSteps`


class Seen(NamedTuple):
    """What one query of the model tells."""

    images: Array  # as the model was shown them
    grads: Array
    loss: Array
    wrong: Array


class State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    x: Array
    previous: Array
    grads: Array
    best_x: Array
    best_grads: Array
    best_loss: Array
    adversarial: Array  # the latest misclassified image; the start where there is none
    success: Array  # some visited image was misclassified
    step_size: Array
    memory: Any


class Record(NamedTuple):
    """The visited points and what was decided there, `[T + 1, b, ...]`."""

    x: Array
    step_size: Array  # that led there; eps or 2 eps, unused, at the start
    loss: Array
    best_loss: Array
    correct: Array  # at every point so far


def run(
    problem: Problem,
    keys: Array,
    *,
    number: Array | int = 0,
    start: Array | None = None,
    noise: Array | None = None,
    record: bool = False,
) -> tuple[State, Record | None]:
    """Run `number`, from the perturbation `start` or from a random point made of `noise`."""
    noise_keys, model_keys = fold_keys(keys, 2 * number), fold_keys(keys, 2 * number + 1)
    fresh = start is None and not problem.eps_schedule
    if start is not None:
        x = problem.images + start
    else:
        drawn = _draw(problem, noise_keys) if noise is None else noise
        # A schedule's first stage projects the noise, as every stage what it is handed.
        x = _steps(problem, 1.0, fresh).start(drawn) if fresh else problem.images + drawn

    def step(state: State, row: Row) -> tuple[State, Record | None]:
        steps = _steps(problem, row.radius, fresh)
        x = jax.lax.cond(
            row.begins,
            lambda: steps.begin(state.best_x),
            lambda: steps.move(
                state.x, state.previous, state.grads, state.step_size, state.memory, row.check
            ),
        )
        seen = _look(problem, fold_keys(model_keys, row.number), steps.visible(x))
        begun, advanced = _begin(steps, x, seen), _advance(steps, state, x, seen, row.check)
        after = jax.tree.map(lambda a, b: jnp.where(row.begins, a, b), begun, advanced)
        if not record:
            return after, None
        size = jnp.where(row.begins, after.step_size, state.step_size)
        return after, Record(x, size, seen.loss, after.best_loss, ~after.success)

    rows = _rows(problem)
    unroll = min(problem.unroll, len(rows.number))
    return jax.lax.scan(step, _empty(problem, model_keys, x), rows, unroll=unroll)


def _draw(problem: Problem, keys: Array) -> Array:
    shape, dtype = problem.images.shape[1:], problem.images.dtype
    if problem.norm == "linf":
        return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, -1, 1))(keys)
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def _steps(problem: Problem, radius: Any, fresh: bool) -> Steps:
    eps = problem.eps * jnp.asarray(radius, problem.eps.dtype)
    if problem.norm == "l1":
        return SparseSteps(problem.images, eps, fresh)
    return CheckpointSteps(problem.images, eps, fresh, problem.norm)


def _rows(problem: Problem) -> Row:
    """All iterations, those of the radius schedule's stages one after the other."""
    stages = radius_stages(problem.steps) if problem.eps_schedule else [(1.0, problem.steps)]
    rows = []
    for radius, steps in stages:
        check = sparsity_checks(steps) if problem.norm == "l1" else checkpoints(steps)
        begins = np.arange(steps + 1) == 0
        check = jax.tree.map(lambda column: np.append(np.zeros(1, column.dtype), column), check)
        rows.append(Row(begins, begins, np.full(steps + 1, radius), check))
    together = jax.tree.map(lambda *columns: np.concatenate(columns), *rows)
    return together._replace(number=np.arange(len(together.begins), dtype=np.int32))


def _look(problem: Problem, keys: Array, x: Array) -> Seen:
    """Losses, verdicts and gradients at `x`."""
    shown = x
    if problem.dtype != x.dtype:
        bound = jnp.abs(x - problem.images)
        shown = rounded_inward(x.astype(problem.dtype), problem.images, bound)

    def total(images: Array, number: Array | int) -> tuple[Array, tuple[Array, Array]]:
        logits = problem.logits_fn(images, fold_keys(keys, number))
        losses = problem.loss(logits, problem.labels)
        return jnp.sum(losses), (losses, misclassified(logits, problem.labels))

    def once(number: Array | int) -> Seen:
        grads, (losses, wrong) = jax.grad(total, has_aux=True)(shown, number)
        return Seen(shown, finite(grads.astype(x.dtype)), losses, wrong)

    if problem.eot == 1:
        return once(0)

    def again(number: Array | int, before: Seen) -> Seen:
        now = once(number)
        return now._replace(grads=before.grads + now.grads)

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, 0))
    seen = jax.lax.fori_loop(0, problem.eot, again, nothing)
    return seen._replace(grads=seen.grads / problem.eot)


def _empty(problem: Problem, keys: Array, x: Array) -> State:
    """A carry from which only the first point is read."""

    def begun(x: Array) -> State:
        steps = _steps(problem, 1.0, fresh=True)
        return _begin(steps, x, _look(problem, keys, x))

    shapes = jax.eval_shape(begun, x)
    empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return empty._replace(best_x=x)


def _begin(steps: Steps, x: Array, seen: Seen) -> State:
    step_size, memory = steps.first(x, seen.loss)
    return State(
        x=x,
        previous=x,  # no momentum yet
        grads=seen.grads,
        best_x=x,
        best_grads=seen.grads,
        best_loss=seen.loss,
        adversarial=seen.images,
        success=seen.wrong,
        step_size=step_size,
        memory=memory,
    )


def _advance(steps: Steps, state: State, x: Array, seen: Seen, check: Any) -> State:
    # Only a strictly higher loss is better; anything is better than NaN.
    better = (seen.loss > state.best_loss) | jnp.isnan(state.best_loss)
    best_x, best_grads, best_loss = where(
        better,
        (x, seen.grads, seen.loss),
        (state.best_x, state.best_grads, state.best_loss),
    )
    step_size, memory, back = steps.adjust(
        state.memory, state.step_size, seen.loss, (best_x, best_loss), check
    )
    return State(
        x=where(back, best_x, x),
        # Also after a return: the next momentum then is the way from here to the best point.
        previous=state.x,
        grads=where(back, best_grads, seen.grads),
        best_x=best_x,
        best_grads=best_grads,
        best_loss=best_loss,
        adversarial=where(seen.wrong, seen.images, state.adversarial),
        success=state.success | seen.wrong,
        step_size=step_size,
        memory=memory,
    )
