"""sigma-zero: sparse perturbations from a smooth count of changed values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._adam import Moments, adam_step, no_moments
from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._nearest import (
    Nearest,
    Task,
    attacked,
    clipped,
    cosine,
    follow,
    gap,
    moved,
    nearer,
    none_attacked,
    nothing_found,
    number_of,
    reached,
    task_of,
)
from jaxrobust.attacks._norms import column, norm_of
from jaxrobust.inputs import as_count
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn


class _Settings(NamedTuple):
    """What does not change during a run; numbers per example."""

    steps: int
    step_size: Array
    sigma: Array
    threshold_rate: Array


class _State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    delta: Array
    moments: Moments
    threshold: Array
    nearest: Nearest


def sigma_zero(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    steps: int = 1000,
    step_size: ArrayLike = 1.0,
    sigma: ArrayLike = 1e-3,
    threshold: ArrayLike = 0.3,
    threshold_rate: ArrayLike = 0.01,
) -> Attacked:
    r"""sigma-zero: an l_0 attack that changes as few values of an image as possible.

    .. math:: \min_\delta \; \max(z_y - \max_{k \ne y} z_k, 0)
        + \frac{1}{d} \sum_j \frac{\delta_j^2}{\delta_j^2 + \sigma}

    by Adam on the gradient divided by its largest value. After each step, values below a threshold
    are set to 0; the threshold rises after an adversarial iterate and falls otherwise. Step sizes
    decrease to a tenth along half a cosine.

    A step costs one forward and one backward pass. The norm counts changed values (`h w c`), not
    pixels.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; the attack draws nothing.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      steps: number of steps, static.
      step_size: Adam's initial learning rate, in image units. Like all numbers below it is `[]` or
        `[b]` and may be traced.
      sigma: squared change at which a value counts as half changed.
      threshold: initial absolute value in [0, 1] below which changes are undone.
      threshold_rate: change of the threshold per step, in units of the current learning rate.

    Returns:
      `Attacked`. `images` are the nearest adversarial images found, or the clean ones where none
      was found; `distance` `[b]` is the number of values changed in `perturbation` `[b, h, w, c]`
      (0 where the clean image is misclassified, inf where nothing was found); `success` is whether
      it is finite. `loss` is the margin of the returned image.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> weights = jnp.array([[3.0, 0.0], [0.5, 0.0], [0.5, 0.0], [0.0, 2.0]])
      >>> def logits_fn(x): return x.reshape(1, 4) @ weights
      >>> images = jnp.full((1, 2, 2, 1), 0.3)
      >>> found = attacks.sigma_zero(logits_fn, jax.random.key(0), images, jnp.array([0]), steps=50)
      >>> float(found.distance[0])
      1.0

    References:
      Cinà et al., sigma-zero: Gradient-based Optimization of l0-norm Adversarial Examples, 2024
      (arXiv:2402.01879), Algorithm 1.
    """
    as_count(steps, name="steps")
    task = task_of(logits_fn, key, images, labels)
    settings = _Settings(
        steps=steps,
        step_size=number_of(task, "step_size", step_size, low=0),
        sigma=number_of(task, "sigma", sigma, low=0, positive=True),
        threshold_rate=number_of(task, "threshold_rate", threshold_rate, low=0),
    )
    limit = number_of(task, "threshold", threshold, low=0, high=1)
    if not len(task.images):
        return none_attacked(task)
    state = _begin(task, limit)
    state = jax.lax.fori_loop(0, steps, lambda i, state: _step(task, settings, i, state), state)
    return attacked(task, state.nearest)


def _begin(task: Task, limit: Array) -> _State:
    """At the clean image."""
    delta = jnp.zeros_like(task.images)
    return _State(delta, no_moments(delta), limit, nothing_found(task))


def _step(task: Task, settings: _Settings, i: Array, state: _State) -> _State:
    """Evaluates the iterate, then moves; the last iterate is never evaluated."""
    delta = state.delta
    logits, _, grad = follow(task, delta, lambda logits: jnp.maximum(gap(task, logits), 0))
    hit = reached(task, logits)
    nearest = nearer(
        state.nearest, delta, norm_of(moved(task, delta), "l0"), hit,
        margin(logits, task.labels), delta[0].size,
    )  # fmt: skip
    # The derivative of the smooth count, written out: a network's NaN cannot spoil it.
    sigma, square = column(settings.sigma), delta * delta
    grad = grad + 2 * delta * sigma / (square + sigma) ** 2 / delta[0].size
    grad = grad / column(jnp.maximum(norm_of(grad, "linf"), 1e-12))
    rate, after = (_rate(settings, step) for step in (i, i + 1))
    moments, direction = adam_step(state.moments, grad, i)
    delta = clipped(task, delta - column(rate) * direction)
    change = settings.threshold_rate * after
    threshold = jnp.clip(state.threshold + jnp.where(hit, change, -change), 0, 1)
    delta = jnp.where(jnp.abs(delta) < column(threshold), 0, delta)
    return _State(delta, moments, threshold, nearest)


def _rate(settings: _Settings, step: Array) -> Array:
    return cosine(step, settings.steps, settings.step_size, settings.step_size / 10)
