"""SuperDeepFool: DeepFool steps projected onto the normal of the boundary that they find."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked, finite, where
from jaxrobust.attacks._deepfool import Walk, begin, toward, walk_on
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
from jaxrobust.attacks._norms import column, norm_of
from jaxrobust.inputs import as_count
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import has_nan, predicted


class _Settings(NamedTuple):
    """What does not change during a run."""

    deepfool_steps: int
    overshoot: Array  # [b]


class _Line(NamedTuple):
    """Between the clean image (share 0) and the end of the walk (1); per example."""

    low: Array  # largest share below which nothing adversarial was seen
    high: Array  # smallest adversarial one
    found: Array  # bool: an adversarial point was looked at
    loss: Array  # margin there


def superdeepfool(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    steps: int = 100,
    deepfool_steps: int = 100,
    overshoot: ArrayLike = 0.02,
    search_steps: int = 10,
) -> Attacked:
    r"""SuperDeepFool, in l_2: steps along the normal of the boundary at DeepFool's point.

    .. math:: u = \mathrm{DeepFool}(v), \quad w = \frac{\nabla (z_c - z_y)(u)}{\|\cdot\|_2}, \quad
        v \leftarrow \mathrm{clip}(v + \langle u - x, w \rangle w)

    until v is misclassified, where c is the class of u; then the segment from the clean image x
    to v is bisected. This follows the authors' code, not the paper's algorithm. The latter restarts
    at x each time, and cycles inside the boundary where the box clips its steps. The sum of the
    steps overshoots, so the bisection matters: without it the distances are about 50 % larger.

    Two or three outer steps are typical. Each costs DeepFool's passes, two more forward passes and
    one more backward pass; the bisection costs `search_steps` forward passes.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; the attack draws nothing.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      steps: largest number of outer steps, static.
      deepfool_steps: number of steps of each DeepFool run, static.
      overshoot: overshoot of DeepFool's steps, `[]` or `[b]`; may be traced.
      search_steps: number of bisections, static.

    Returns:
      `Attacked`. `images` are the adversarial images found, or the clean ones where none was found;
      `distance` `[b]` is the l_2 norm of `perturbation` `[b, h, w, c]` (0 where the clean image is
      misclassified, inf where nothing was found); `success` is whether it is finite. `loss` is the
      margin of the returned image, `queries` and `backwards` `[b]` are the forward and backward
      passes used by the example.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.6)
      >>> found = attacks.superdeepfool(lambda x: logits_fn(x - 0.5), jax.random.key(0), images,
      ...     jnp.array([0]))
      >>> round(float(found.distance[0]), 2)
      0.2

    References:
      Abdollahpoorrostam et al., Revisiting DeepFool: Generalization and Improvement, 2023
      (arXiv:2303.12481), SuperDeepFool.
    """
    as_count(steps, name="steps")
    as_count(deepfool_steps, name="deepfool_steps")
    as_count(search_steps, name="search_steps", least=0)
    task = task_of(logits_fn, key, images, labels)
    settings = _Settings(deepfool_steps, number_of(task, "overshoot", overshoot, low=0))
    if not len(task.images):
        nothing = none_attacked(task)
        none = nothing.success.astype(jnp.int32)
        return nothing._replace(queries=none, backwards=none)

    def goes_on(walk: Walk) -> Array:
        return (walk.step < steps) & ~jnp.all(walk.done)

    def move(walk: Walk) -> Walk:
        return _step(task, settings, walk)[0]

    walk = jax.lax.while_loop(goes_on, move, begin(task))
    line = _search(task, walk, search_steps)
    delta = where(line.found, walk.delta * column(line.high), jnp.zeros_like(walk.delta))
    size = norm_of(moved(task, delta), "l2")
    nearest = Nearest(delta, jnp.where(line.found, size, jnp.inf), line.loss)
    searched = jnp.any(walk.delta != 0, (1, 2, 3)).astype(jnp.int32) * search_steps
    return attacked(task, nearest)._replace(queries=walk.looks + searched, backwards=walk.pulls)


def _step(task: Task, settings: _Settings, walk: Walk) -> tuple[Walk, Array]:
    """Evaluates the iterate and moves it unless adversarial; also returns DeepFool's points."""
    logits = task.evaluate(walk.delta)
    hit = reached(task, logits)
    done, told = walk.done | hit, ~walk.done & (hit | (walk.step == 0))
    inner = walk_on(
        task, walk._replace(step=jnp.int32(0), done=done),
        norm="l2", steps=settings.deepfool_steps, overshoot=settings.overshoot,
    )  # fmt: skip
    there, pull = jax.vjp(task.evaluate, inner.delta)
    target = jnp.where(reached(task, there), predicted(there), inner.target)
    grad = finite(pull(toward(there, target, task.labels))[0])
    normal = grad / column(jnp.maximum(norm_of(grad, "l2"), 1e-6))
    length = jnp.sum(inner.delta * normal, (1, 2, 3))
    delta = clipped(task, walk.delta + column(length) * normal)
    # NaN logits have no normal, but they are errors: nothing better is at hand.
    delta = where(has_nan(there), inner.delta, delta)
    looks = inner.looks + (~walk.done).astype(jnp.int32) + (~done).astype(jnp.int32)
    after = walk._replace(
        step=walk.step + 1,
        delta=where(done, walk.delta, delta),
        done=done,
        loss=jnp.where(told, margin(logits, task.labels), walk.loss),
        looks=looks,
        pulls=inner.pulls + (~done).astype(jnp.int32),
    )
    return after, inner.delta


def _search(task: Task, walk: Walk, search_steps: int) -> _Line:
    """Bisects the segments from the clean images to the ends of the walks."""

    def halve(_: int, line: _Line) -> _Line:
        middle = (line.low + line.high) / 2
        logits = task.evaluate(walk.delta * column(middle))
        hit = reached(task, logits)
        return _Line(
            where(hit, line.low, middle),
            where(hit, middle, line.high),
            line.found | hit,
            where(hit, margin(logits, task.labels), line.loss),
        )

    zeros = jnp.zeros(len(walk.delta), walk.delta.dtype)
    return jax.lax.fori_loop(0, search_steps, halve, _Line(zeros, zeros + 1, walk.done, walk.loss))
