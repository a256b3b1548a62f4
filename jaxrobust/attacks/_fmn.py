"""FMN, the fast minimum-norm attack: a radius that shrinks on success and grows on failure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked, where
from jaxrobust.attacks._balls import largest_values, onto_ball
from jaxrobust.attacks._nearest import (
    Nearest,
    Task,
    attacked,
    clipped,
    cosine,
    follow,
    gap,
    look_at_clean,
    moved,
    nearer,
    none_attacked,
    nothing_found,
    number_of,
    reached,
    start_of,
    task_of,
)
from jaxrobust.attacks._norms import DUAL, column, farthest, norm_of
from jaxrobust.inputs import InputError, as_choice, as_count
from jaxrobust.losses import margin
from jaxrobust.typing import ANY_NORMS, AnyNorm, LogitsFn


class _Settings(NamedTuple):
    """What does not change during a run; numbers per example."""

    norm: AnyNorm
    steps: int
    step_size: Array
    final_step_size: Array
    gamma: Array
    final_gamma: Array
    escape: bool


class _State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    delta: Array
    radius: Array
    found: Array  # whether any point so far was adversarial, at whatever norm
    nearest: Nearest


def fmn(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: AnyNorm = "l2",
    steps: int = 1000,
    step_size: ArrayLike = 1.0,
    final_step_size: ArrayLike | None = None,
    gamma: ArrayLike = 0.05,
    final_gamma: ArrayLike = 0.001,
    targets: ArrayLike | None = None,
    start: ArrayLike | None = None,
    search_steps: int = 10,
    escape: bool = False,
) -> Attacked:
    r"""Fast minimum-norm attack: gradient steps inside a ball whose radius adapts.

    .. math:: \delta_{i+1} = \mathrm{clip}\,\Pi_{r_i}(\delta_i + \alpha_i\, g_i / \|g_i\|_2)

    where :math:`g_i` is the gradient of the margin. The radius :math:`r_i` shrinks by the share
    :math:`\gamma_i` while the iterate is adversarial and grows by it otherwise. Before the first
    success it is the distance to the linearised boundary. Step size and :math:`\gamma_i` decrease
    along half a cosine. One run serves a whole curve of radii through `distance`.

    The published form can stall: where many pixels are at 0 or 1, the box undoes the step, and the
    iterate stops just inside the boundary. On 100 images of digits it finds adversarial images for
    15 to 75 in "l2" and "l1". With `escape=True` the radius never falls before the first success;
    this finds all of them, with the same distances where the published form succeeds. It is
    recommended for "l1", "l2" and "linf".

    A step costs one forward and one backward pass. A given `start` costs `search_steps + 2` more
    forward passes.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; the attack draws nothing.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "l0", "l1", "l2" or "linf", over all values of an image; "l0" counts changed values
        (`h w c`), not pixels. Static.
      steps: number of steps, static.
      step_size: Euclidean length of the first step in image units, for every norm. Like all numbers
        below it is `[]` or `[b]` and may be traced.
      final_step_size: length of the last step; default `step_size / 100`.
      gamma: initial relative change of the radius per step, in [0, 1].
      final_gamma: relative change of the radius in the last step.
      targets: class indices `[b]` for the targeted form; success then means that the target was
        reached.
      start: a perturbation `[b, h, w, c]` whose image is adversarial, such as the difference to an
        image of another class; clipped to the box. The attack begins where the norm's path to it
        crosses the decision boundary, found by bisection. A start that is not adversarial is
        ignored.
      search_steps: bisections of that path, static.
      escape: keep the radius from falling before the first success; static. Not for "l0", whose
        radius is never estimated.

    Returns:
      `Attacked`. `images` are the nearest adversarial images found, or the clean ones where none
      was found; `distance` `[b]` is the norm of `perturbation` `[b, h, w, c]` (0 where the clean
      image is misclassified, inf where nothing was found); `success` is whether it is finite.
      `loss` is the margin of the returned image.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, or `escape` is set for
        "l0".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return jnp.tanh(x.mean(axis=(1, 2)) - 0.5) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.6)
      >>> found = attacks.fmn(logits_fn, jax.random.key(0), images, jnp.array([0]), norm="linf",
      ...     steps=200)
      >>> round(float(found.distance[0]), 3)
      0.1

    References:
      Pintor et al., Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints, 2021
      (arXiv:2102.12827), Algorithm 1. `escape` is this library's.
    """
    as_choice(norm, name="norm", choices=ANY_NORMS)
    as_count(steps, name="steps")
    as_count(search_steps, name="search_steps", least=0)
    if escape and norm == "l0":
        raise InputError("escape must be False for norm 'l0', whose radius is never estimated")
    task = task_of(logits_fn, key, images, labels, targets)
    last = number_of(task, "step_size", step_size, low=0) / 100
    if final_step_size is not None:
        last = number_of(task, "final_step_size", final_step_size, low=0)
    settings = _Settings(
        norm=norm,
        steps=steps,
        step_size=number_of(task, "step_size", step_size, low=0),
        final_step_size=last,
        gamma=number_of(task, "gamma", gamma, low=0, high=1),
        final_gamma=number_of(task, "final_gamma", final_gamma, low=0, high=1),
        escape=escape,
    )
    delta = None if start is None else start_of(task, start)
    if not len(task.images):
        return none_attacked(task)
    state = _begin(task, settings, delta, search_steps)
    state = jax.lax.fori_loop(0, steps, lambda i, state: _step(task, settings, i, state), state)
    return attacked(task, state.nearest)


def _begin(task: Task, settings: _Settings, start: Array | None, search_steps: int) -> _State:
    """At the clean image, or on the boundary between it and an adversarial start."""
    norm, delta = settings.norm, jnp.zeros_like(task.images)
    # Larger than any norm: nothing is known yet. Not inf, which times 0 is NaN.
    far = jnp.full(len(delta), jnp.finfo(delta.dtype).max, delta.dtype)
    radius = jnp.ones_like(far) if norm == "l0" else far
    nearest = nothing_found(task)
    if start is not None:
        nearest = look_at_clean(task, norm)
        usable = reached(task, task.evaluate(start))
        delta = where(usable, _on_the_way(task, start, norm, search_steps), delta)
        if norm == "l0":
            radius = where(usable, norm_of(delta, norm), radius)
    return _State(delta, radius, jnp.zeros(len(delta), bool), nearest)


def _on_the_way(task: Task, start: Array, norm: AnyNorm, search_steps: int) -> Array:
    """The first adversarial point on the norm's path to the start, up to bisection."""

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        hit = reached(task, task.evaluate(_path(start, middle, norm)))
        return where(hit, low, middle), where(hit, middle, high)

    ends = jnp.zeros(len(start), start.dtype), jnp.ones(len(start), start.dtype)
    return _path(start, jax.lax.fori_loop(0, search_steps, halve, ends)[1], norm)


def _path(start: Array, share: Array, norm: AnyNorm) -> Array:
    """Perturbations from 0 (share 0) to the start (share 1) that grow in the given norm."""
    if norm == "l2":
        return column(share) * start
    if norm == "linf":
        return jnp.clip(start, -column(share), column(share))
    if norm == "l1":
        return jnp.sign(start) * jnp.maximum(jnp.abs(start) - (1 - column(share)), 0)
    return largest_values(start, jnp.floor(share * start[0].size))


def _step(task: Task, settings: _Settings, i: Array, state: _State) -> _State:
    """Evaluates the iterate, then moves; the last iterate is never evaluated."""
    norm, delta = settings.norm, state.delta
    logits, loss, grad = follow(task, delta, lambda logits: -gap(task, logits))
    hit, most = reached(task, logits), farthest(task.images, norm)
    nearest = nearer(
        state.nearest, delta, norm_of(moved(task, delta), norm), hit,
        margin(logits, task.labels), most,
    )  # fmt: skip
    best = jnp.minimum(nearest.distance, most)
    gamma = cosine(i, settings.steps, settings.gamma, settings.final_gamma)
    if norm == "l0":
        radius = _next_count(state.radius, gamma, hit, best)
    else:
        way = jnp.abs(loss) / jnp.maximum(norm_of(grad, DUAL[norm]), 1e-12)
        outset = norm_of(delta, norm)
        if settings.escape:
            outset = jnp.maximum(outset, jnp.where(state.radius > most, 0, state.radius))
        grown = jnp.where(state.found, state.radius * (1 + gamma), outset + way)
        radius = jnp.where(hit, jnp.minimum(state.radius * (1 - gamma), best), grown)
    radius = jnp.minimum(radius, most)
    size = cosine(i, settings.steps, settings.step_size, settings.final_step_size)
    step = column(size / jnp.maximum(norm_of(grad, "l2"), 1e-12)) * grad
    delta = clipped(task, onto_ball(delta + step, radius, norm))
    return _State(delta, radius, state.found | hit, nearest)


def _next_count(count: Array, gamma: Array, hit: Array, best: Array) -> Array:
    """The radius of l_0: integers that change by at least one."""
    fewer = jnp.minimum(count - 1, jnp.floor(count * (1 - gamma)))
    fewer = jnp.maximum(jnp.minimum(fewer, best), 0)
    return jnp.where(hit, fewer, jnp.maximum(count + 1, jnp.floor(count * (1 + gamma))))
