"""CR, constraint relaxation: targeted sign steps in a ball that is initially wider than eps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.attacks._linf_ball import inside, uniform, uphill
from jaxrobust.inputs import InputError, as_batch, as_count, as_logits, as_radius, at_label, pick
from jaxrobust.keys import per_example_keys
from jaxrobust.losses import cross_entropy, margin
from jaxrobust.precision import shown, widened
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import hard_labels, misclassified

NEAR = 0.05  # a margin below which a target is tried again in the next call
LEAST_SCALE = 0.05  # of the relaxation


class Plan(NamedTuple):
    """The counts, all static.

    Attributes:
      steps: number of steps of an attempt at a target.
      period: steps after which the relaxation is halved; a third of them is relaxed.
      targets: target classes.
      restarts: calls; later ones retry the targets that came near.
    """

    steps: int
    period: int
    targets: int
    restarts: int

    @property
    def relaxed(self) -> int:
        """Relaxed steps of a period, and steps that rank the targets."""
        return self.period // 3

    @property
    def periods(self) -> int:
        """The number of periods of an attempt; the last may be shorter."""
        return -(-self.steps // self.period)


class Problem(NamedTuple):
    """What does not change during the attack."""

    logits_fn: LogitsFn
    clean: Array  # as the caller gave them
    images: Array  # in the precision of the computation
    labels: Array
    eps: Array  # [b]
    plan: Plan


class CRState(NamedTuple):
    """The progress of the attack; every leaf is per example.

    Attributes:
      x: `[b, h, w, c]`, the iterate, which may be outside of the ball.
      found: `[b, h, w, c]`, the misclassified image, else the clean one.
      loss: `[b]`, its margin.
      success: `[b]` bool, it is misclassified.
      order: `[b, targets]` int32, target classes.
      due: `[b, targets]` bool, targets that this call tries.
      near: `[b, targets]` bool, those that came near in this call.
      call: `[b]` int32, number of the call; the number of all calls when nothing is left to do.
      target: `[b]` int32, index in `order` of the attempted target.
      period: `[b]` int32, number of the attempt's next period.
      left: `[b]` bool, whether the attempt is over.
      queries: `[b]` int32, forward passes used by the example.
      backwards: `[b]` int32, backward passes used by the example.
    """

    x: Array
    found: Array
    loss: Array
    success: Array
    order: Array
    due: Array
    near: Array
    call: Array
    target: Array
    period: Array
    left: Array
    queries: Array
    backwards: Array


def cr(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    eps: ArrayLike,
    steps: int = 150,
    period: int = 30,
    targets: int = 3,
    restarts: int = 5,
) -> Attacked:
    r"""Constraint relaxation (CR): an l_inf targeted attack that is cheap on clear cases.

    A short walk on cross-entropy ranks the target classes. Each target is then attempted with sign
    steps of size :math:`s\,\epsilon`. In every period a third of the steps stays in the ball of
    radius :math:`(1 + s)\epsilon`, the rest in the ball itself; s is halved from period to period,
    down to 0.05. An attempt ends at the first misclassified image, or early if the label still
    leads the target by more than s. Later calls retry the targets that came within 0.05, with new
    noise.

    The two thresholds are compared with differences of raw logits, as published, so the attack is
    not invariant to the scale of the logits: a network with logits a hundred times as large always
    ends its attempts early, one with logits a tenth as large never does.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, k >= 2, parameters closed over. If it has
        a method `judge`, as `mixing.guided` does, that method determines what is differentiated.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      eps: l_inf radius in image units, `[]` or `[b]`; may be traced.
      steps: number of steps of an attempt, static. A relaxed step costs two forward passes and one
        backward pass, any other step one of each.
      period: steps with one s, at least 3, static.
      targets: target classes, static; all wrong ones where there are fewer.
      restarts: calls, static.

    Returns:
      `Attacked`. `images`: the first misclassified image, else the clean one. `loss`: the margin
      there. A clean error is a success with the clean image. `queries` and `backwards` are the
      passes used by the example.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return (x.mean(axis=(1, 2)) - 0.4) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((2, 4, 4, 1), 0.5)
      >>> found = attacks.cr(logits_fn, jax.random.key(0), images, jnp.array([0, 0]),
      ...     eps=jnp.array([0.05, 0.2]), steps=6, period=6)
      >>> found.success.tolist()
      [False, True]

    References:
      FastAT Benchmark, 2026 (arXiv:2604.22853), the attack of its evaluation. Where one target has
      no image left, their call ends; here it goes on with the next target.
    """
    images, labels = as_batch(images, labels)
    keys = per_example_keys(key, len(images))
    plan = plan_of(steps=steps, period=period, targets=targets, restarts=restarts)
    if not len(images):
        return nothing_attacked(images)
    problem = problem_of(logits_fn, images, labels, eps=eps, plan=plan)

    def unfinished(state: CRState) -> Array:
        return ~jnp.all(cr_done(problem.plan, state))

    def more(state: CRState) -> CRState:
        return cr_period(problem, state, *drawn(problem, state, keys))

    state = jax.lax.while_loop(unfinished, more, cr_begin(problem, first_noise(problem, keys)))
    return cr_end(images, state)


def plan_of(**counts: int) -> Plan:
    """The checked counts.

    Raises:
      InputError: if one is out of range.
    """
    least = {"period": 3}
    return Plan(**{k: as_count(v, name=k, least=least.get(k, 1)) for k, v in counts.items()})


def problem_of(
    logits_fn: LogitsFn, images: Array, labels: Array, *, eps: ArrayLike, plan: Plan
) -> Problem:
    """The checked arguments, constants of the attack: no gradient flows through any."""
    radius = as_radius(eps, batch=len(images), largest=1)
    # Images that a compiled program holds as constants would let XLA re-associate `(x + d) - x`.
    wide = jax.lax.optimization_barrier(jax.lax.stop_gradient(widened(images)))
    radius = jnp.broadcast_to(radius.astype(wide.dtype), (len(images),))
    radius, labels = jax.lax.stop_gradient((radius, hard_labels(labels)))
    classes = jax.eval_shape(network(logits_fn, images), images).shape[-1]
    plan = plan._replace(targets=min(plan.targets, classes - 1))
    return Problem(logits_fn, jax.lax.stop_gradient(images), wide, labels, radius, plan)


def cr_begin(problem: Problem, noise: Array) -> CRState:
    """The clean images, and a short walk on cross-entropy that ranks the targets.

    Args:
      problem: the constants of the attack.
      noise: `[b, h, w, c]` in [-1, 1), noise of the walk's start.
    """
    clean, plan = _forward(problem, problem.images), problem.plan
    nothing = jnp.zeros((len(problem.labels), plan.targets), bool)
    none = jnp.zeros(len(problem.labels), jnp.int32)
    state = CRState(
        x=_noisy(problem, problem.images, noise, problem.eps),
        found=problem.images,
        loss=margin(clean, problem.labels),
        success=misclassified(clean, problem.labels),
        order=nothing.astype(jnp.int32),
        due=~nothing,
        near=nothing,
        call=none,
        target=none,
        period=none,
        left=none.astype(bool),
        queries=none + 1,
        backwards=none,
    )
    step = lambda index, state: cr_walk(problem, state, index)  # noqa: E731
    state = jax.lax.fori_loop(0, plan.relaxed, step, state)
    logits = _forward(problem, state.x)
    scores, own = at_label(logits, problem.labels)
    others = jnp.where(own, -jnp.inf, scores)
    order = jnp.argsort(-others, -1, stable=True)[:, : plan.targets].astype(jnp.int32)
    state = _answered(problem, state, state.x, logits, misclassified(logits, problem.labels))
    return _counted(state._replace(order=order), ~state.success, backwards=0)


def cr_walk(problem: Problem, state: CRState, index: ArrayLike) -> CRState:
    """One step of the walk: looks at the iterate and moves it."""
    going = ~state.success
    logits, grads = uphill(problem.logits_fn, cross_entropy, state.x, problem.clean, problem.labels)
    state = _counted(state, going, backwards=1)
    state = _answered(problem, state, state.x, logits, misclassified(logits, problem.labels))
    size = jnp.where(jnp.asarray(index) == problem.plan.period // 6, 0.25, 0.5)
    moved = _sign_step(problem, state.x, grads, jnp.broadcast_to(size, state.loss.shape))
    return state._replace(
        x=where(state.success, state.x, inside(moved, problem.images, problem.eps))
    )


def cr_period(problem: Problem, state: CRState, start: Array, middle: Array) -> CRState:
    """The next period of each example.

    Args:
      problem: the constants of the attack.
      state: from `cr_begin` or the previous period.
      start: `[b, h, w, c]` in [-1, 1), noise for the attempts that begin.
      middle: the same for the noise in the middle of the period.
    """
    begins = (state.period == 0) & ~cr_done(problem.plan, state)
    first = _noisy(problem, problem.images, start, problem.eps)
    state = state._replace(x=where(begins, first, state.x))

    def unfinished(carry: tuple[Array, CRState]) -> Array:
        place, state = carry
        return (place < problem.plan.period) & jnp.any(going(problem.plan, state, place))

    def step(carry: tuple[Array, CRState]) -> tuple[Array, CRState]:
        place, state = carry
        return place + 1, cr_step(problem, cr_point(problem, state, place, middle), place)

    zero = jnp.zeros((), jnp.int32)
    return _next(problem.plan, jax.lax.while_loop(unfinished, step, (zero, state))[1])


def going(plan: Plan, state: CRState, place: ArrayLike) -> Array:
    """`[b]` bool: the example takes part in the step at a place of its period."""
    number = state.period * plan.period + jnp.asarray(place, jnp.int32)
    return ~cr_done(plan, state) & ~state.left & (number < plan.steps)


def scale(period: Array, dtype: jnp.dtype) -> Array:
    """s of a period: halved from one to the next."""
    return jnp.maximum(0.5 ** (period + 1).astype(dtype), LEAST_SCALE)


def cr_point(problem: Problem, state: CRState, place: ArrayLike, middle: Array) -> CRState:
    """The state with the iterate that the step at a place of the period looks at."""
    size = scale(state.period, state.x.dtype)
    core = inside(state.x, problem.images, problem.eps * (1 - size))
    moved = _noisy(problem, core, middle, problem.eps * size)
    now = going(problem.plan, state, place) & (jnp.asarray(place) == 2 * problem.plan.relaxed)
    return state._replace(x=where(now, moved, state.x))


def cr_step(problem: Problem, state: CRState, place: ArrayLike) -> CRState:
    """One step of an attempt: looks at the iterate, moves it, and looks at it within the ball."""
    plan, place = problem.plan, jnp.asarray(place, jnp.int32)
    active, size = going(plan, state, place), scale(state.period, state.x.dtype)
    towards = jnp.take_along_axis(state.order, state.target[:, None], -1)[:, 0]

    def to_target(logits: Array, labels: Array) -> Array:
        wide = as_logits(logits, "logits")
        return pick(*at_label(wide, towards)) - pick(*at_label(wide, labels))

    logits, grads = uphill(problem.logits_fn, to_target, state.x, problem.clean, problem.labels)
    state = _counted(state, active, backwards=1)
    lead = -to_target(logits, problem.labels)  # of the label
    strict = active & (place > plan.relaxed)
    wrong = strict & misclassified(logits, problem.labels)
    state = _came_near(state, strict & (lead < NEAR))
    state = _answered(problem, state, state.x, logits, wrong)
    hopeless = active & (place == 2 * plan.relaxed - 1) & (lead > size)
    state = state._replace(left=state.left | wrong | hopeless)
    reach = problem.eps * jnp.where(place < plan.relaxed, 1 + size, jnp.ones_like(size))
    moved = inside(_sign_step(problem, state.x, grads, size), problem.images, reach)
    active = active & ~state.left
    state = state._replace(x=where(active, moved, state.x))
    look = lambda state: _look_inside(problem, state, active)  # noqa: E731
    return jax.lax.cond(place <= plan.relaxed, look, lambda state: state, state)


def _look_inside(problem: Problem, state: CRState, active: Array) -> CRState:
    """Whether the projected iterate is misclassified or nearly; the iterate itself is unchanged."""
    x = inside(state.x, problem.images, problem.eps)
    logits = _forward(problem, x)
    lead = -margin(logits, problem.labels)
    wrong = active & misclassified(logits, problem.labels)
    state = _came_near(_counted(state, active, backwards=0), active & (lead < NEAR))
    state = _answered(problem, state, x, logits, wrong)
    return state._replace(left=state.left | wrong)


def _next(plan: Plan, state: CRState) -> CRState:
    """What each example does next: a period, a target, a call, or nothing."""
    over = state.left | (state.period + 1 >= plan.periods)
    places = jnp.arange(plan.targets, dtype=jnp.int32)[None]
    later = state.due & (places > state.target[:, None])
    again = over & ~later.any(-1)
    due, near = where(again, (state.near, jnp.zeros_like(state.near)), (state.due, state.near))
    target = jnp.where(later.any(-1), jnp.argmax(later, -1), jnp.argmax(due, -1))
    call = jnp.where(due.any(-1), state.call + again.astype(jnp.int32), plan.restarts)
    return state._replace(
        due=due,
        near=near,
        call=jnp.where(cr_done(plan, state), state.call, call),
        target=jnp.where(over, target.astype(jnp.int32), state.target),
        period=jnp.where(over, 0, state.period + 1),
        left=jnp.zeros_like(state.left),
    )


def cr_done(plan: Plan, state: CRState) -> Array:
    """`[b]` bool: misclassified, or nothing is left to try."""
    return state.success | (state.call >= plan.restarts)


def cr_end(clean: Array, state: CRState) -> Attacked:
    """The result, in the precision of the clean images."""
    found = shown(state.found, clean)
    passes = {"queries": state.queries, "backwards": state.backwards}
    return jax.lax.stop_gradient(Attacked(found, state.success, state.loss, **passes))


def first_noise(problem: Problem, keys: Array) -> Array:
    """Noise of the walk's start."""
    return uniform(_folded(keys, jnp.zeros_like(problem.labels)), problem.images)


def drawn(problem: Problem, state: CRState, keys: Array) -> tuple[Array, Array]:
    """Noise of the attempt's start and of the middle of its next period, for each example."""
    attempt = state.call * problem.plan.targets + state.target
    number = 1 + attempt * (problem.plan.periods + 1)
    numbers = number, number + 1 + state.period
    start, middle = (uniform(_folded(keys, each), problem.images) for each in numbers)
    return start, middle


def _folded(keys: Array, numbers: Array) -> Array:
    return jax.vmap(jax.random.fold_in)(keys, numbers)


def _noisy(problem: Problem, x: Array, noise: Array, radius: Array) -> Array:
    """`x` with noise of a size, in the box."""
    return jnp.clip(x + radius[:, None, None, None] * noise, 0, 1)


def _sign_step(problem: Problem, x: Array, grads: Array, size: Array) -> Array:
    step = problem.eps * size.astype(problem.eps.dtype)
    return x + step[:, None, None, None] * jnp.sign(grads)


def _counted(state: CRState, active: Array, *, backwards: int) -> CRState:
    once = active.astype(jnp.int32)
    passes = {"queries": state.queries + once, "backwards": state.backwards + backwards * once}
    return state._replace(**passes)


def _came_near(state: CRState, now: Array) -> CRState:
    places = jnp.arange(state.near.shape[1], dtype=jnp.int32)[None]
    return state._replace(near=state.near | (now[:, None] & (places == state.target[:, None])))


def _answered(problem: Problem, state: CRState, x: Array, logits: Array, wrong: Array) -> CRState:
    """The state with `x` recorded for the examples that it fools."""
    new = inside(x, problem.images, problem.eps), margin(logits, problem.labels)
    found, loss = where(wrong & ~state.success, new, (state.found, state.loss))
    return state._replace(found=found, loss=loss, success=state.success | wrong)


def _forward(problem: Problem, x: Array) -> Array:
    evaluate = network(problem.logits_fn, problem.clean)
    logits = checked_logits(evaluate(shown(x, problem.clean)), problem.labels)
    logits = as_logits(logits, "logits")
    if logits.shape[-1] < 2:
        raise InputError(f"logits_fn must return at least two logits, got {logits.shape[-1]}")
    return logits
