"""One run of Auto-PGD: a single compiled loop, with one model pass in it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._apgd_checkpoints import CheckpointSteps, checkpoints
from jaxrobust.attacks._apgd_l1 import SparseSteps, radius_stages, sparsity_checks
from jaxrobust.attacks._attacked import finite, where
from jaxrobust.keys import fold_keys
from jaxrobust.precision import rounded_inward
from jaxrobust.typing import Loss
from jaxrobust.verdicts import misclassified

Steps = CheckpointSteps | SparseSteps


class Problem(NamedTuple):
    """What does not change during an attack."""

    judge: Callable[[Array, Array], tuple[Array, Array]]  # images, keys [b] -> losses, logits
    margin: Loss  # the image of the least one is kept; of equal misclassified ones the latest
    images: Array  # in the precision of the computation
    labels: Array
    eps: Array  # [b]
    norm: str
    dtype: Any  # the caller's: what the model sees and the attack returns
    steps: int
    eps_schedule: bool
    eot: int
    unroll: int
    iterations: Array | None  # of at most `steps`; None for all
    sparsity: ArrayLike | None = None  # of the first l_1 steps; None for AutoAttack's


class Row(NamedTuple):
    """The parameters of each iteration: arrays `[T + 1]`, or `[T + 3]` with a radius schedule.

    The start of a run is an iteration too: the model is compiled once, not once for the start
    and once for the loop.
    """

    number: Any
    begins: Any  # this iteration evaluates the start of a run
    radius: Any  # factor of eps
    check: Any  # of `CheckpointSteps` or `SparseSteps`
    idle: Any  # after the last iteration, where their number is traced


class Seen(NamedTuple):
    """The result of one query of the model."""

    images: Array  # as the model was shown them
    grads: Array
    loss: Array
    wrong: Array
    margin: Array


class State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    x: Array
    previous: Array
    grads: Array
    best_x: Array
    best_grads: Array
    best_loss: Array
    adversarial: Array  # of the least margin; by default the latest misclassified, else the start
    margin: Array  # there
    success: Array  # some visited image was misclassified
    step_size: Array
    memory: Any


class Record(NamedTuple):
    """The visited points and the decisions there, `[T + 1, b, ...]`."""

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

    def step_unless_idle(state: State, row: Row) -> tuple[State, Record | None]:
        return jax.lax.cond(row.idle, lambda: (state, None), lambda: step(state, row))

    rows = _rows(problem)
    unroll = min(problem.unroll, len(rows.number))
    body = step if problem.iterations is None else step_unless_idle
    return jax.lax.scan(body, _empty(problem, model_keys, x), rows, unroll=unroll)


def _draw(problem: Problem, keys: Array) -> Array:
    shape, dtype = problem.images.shape[1:], problem.images.dtype
    if problem.norm == "linf":
        return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, -1, 1))(keys)
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def _steps(problem: Problem, radius: Any, fresh: bool) -> Steps:
    eps = problem.eps * jnp.asarray(radius, problem.eps.dtype)
    if problem.norm == "l1":
        return SparseSteps(problem.images, eps, fresh, problem.sparsity)
    return CheckpointSteps(problem.images, eps, fresh, problem.norm)


def _rows(problem: Problem) -> Row:
    """All iterations of a run."""
    if problem.iterations is None:
        return _rows_of(problem, problem.steps)
    # The rows of every number of iterations, padded to the same length; one is taken.
    every = [_padded(_rows_of(problem, n), problem.steps + 1) for n in range(problem.steps + 1)]
    number = jnp.clip(problem.iterations, 0, problem.steps)
    return jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows))[number], *every)


def _padded(rows: Row, length: int) -> Row:
    rest = length - len(rows.number)
    rows = jax.tree.map(lambda column: np.append(column, np.zeros(rest, column.dtype)), rows)
    return rows._replace(idle=np.arange(length) >= length - rest)


def _rows_of(problem: Problem, steps: int) -> Row:
    """The given number of iterations; with a radius schedule, stage after stage."""
    stages = radius_stages(steps) if problem.eps_schedule else [(1.0, steps)]
    rows = []
    for radius, steps in stages:
        check = sparsity_checks(steps) if problem.norm == "l1" else checkpoints(steps)
        begins = np.arange(steps + 1) == 0
        check = jax.tree.map(lambda column: np.append(np.zeros(1, column.dtype), column), check)
        idle = np.zeros(steps + 1, bool)
        rows.append(Row(begins, begins, np.full(steps + 1, radius), check, idle))
    together = jax.tree.map(lambda *columns: np.concatenate(columns), *rows)
    return together._replace(number=np.arange(len(together.begins), dtype=np.int32))


def _look(problem: Problem, keys: Array, x: Array) -> Seen:
    """Losses, verdicts and gradients at `x`."""
    shown = _rounded(problem, x)

    def total(images: Array, number: Array | int) -> tuple[Array, tuple[Array, Array, Array]]:
        losses, logits = problem.judge(images, fold_keys(keys, number))
        seen = (
            losses,
            misclassified(logits, problem.labels),
            problem.margin(logits, problem.labels),
        )
        return jnp.sum(losses), seen

    def once(number: Array | int) -> Seen:
        grads, seen = jax.grad(total, has_aux=True)(shown, number)
        return Seen(shown, finite(grads.astype(x.dtype)), *seen)

    if problem.eot == 1:
        return once(0)

    def again(number: Array | int, before: Seen) -> Seen:
        now = once(number)
        return now._replace(grads=before.grads + now.grads)

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(once, 0))
    seen = jax.lax.fori_loop(0, problem.eot, again, nothing)
    return seen._replace(grads=seen.grads / problem.eot)


def _rounded(problem: Problem, x: Array) -> Array:
    """Rounded to the caller's precision, never farther from the image."""
    if problem.dtype == x.dtype:
        return x
    bound = jnp.abs(x - problem.images)
    return rounded_inward(x.astype(problem.dtype), problem.images, bound)


def best_images(problem: Problem, state: State) -> Array:
    """The images of highest loss, as the model saw them."""
    return _rounded(problem, _steps(problem, 1.0, fresh=True).visible(state.best_x))


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
        margin=seen.margin,
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
    latest = (seen.margin == state.margin) & seen.wrong
    kept, margin = where(
        latest | (seen.margin < state.margin),
        (seen.images, seen.margin),
        (state.adversarial, state.margin),
    )
    return State(
        x=where(back, best_x, x),
        # Also after a return: the next momentum then is the way from here to the best point.
        previous=state.x,
        grads=where(back, best_grads, seen.grads),
        best_x=best_x,
        best_grads=best_grads,
        best_loss=best_loss,
        adversarial=kept,
        margin=margin,
        success=state.success | seen.wrong,
        step_size=step_size,
        memory=memory,
    )
