"""DDN: the gradient gives the direction, and a separate rule the norm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked, where
from jaxrobust.attacks._nearest import (
    Nearest,
    Task,
    attacked,
    cosine,
    follow,
    moved,
    nearer,
    none_attacked,
    nothing_found,
    number_of,
    reached,
    task_of,
)
from jaxrobust.attacks._norms import column, farthest, norm_of
from jaxrobust.inputs import as_count
from jaxrobust.keys import fold_keys
from jaxrobust.losses import cross_entropy, margin
from jaxrobust.typing import LogitsFn

STEP_SIZES = 1.0, 0.01  # first and last; constants of the method


class _Settings(NamedTuple):
    """What does not change during a run; numbers per example."""

    steps: int
    gamma: Array
    levels: int | None


class _State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    delta: Array
    radius: Array
    nearest: Nearest


def ddn(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    steps: int = 1000,
    gamma: ArrayLike = 0.05,
    init_norm: ArrayLike = 1.0,
    levels: int | None = None,
    targets: ArrayLike | None = None,
) -> Attacked:
    r"""Decoupled direction and norm: gradient steps on a sphere whose radius adapts, in l_2.

    .. math:: \delta_{i+1} = \mathrm{clip}\Big(r_{i+1}\,
        \frac{\delta_i + \alpha_i\, g_i / \|g_i\|_2}{\|\delta_i + \alpha_i\, g_i / \|g_i\|_2\|_2}
        \Big)

    where :math:`g_i` is the gradient of the cross-entropy. The radius shrinks by the share `gamma`
    after an adversarial iterate and grows by the same share otherwise. Step sizes decrease from 1
    to 0.01 along half a cosine.

    A step costs one forward and one backward pass. With one step, only the clean image is
    evaluated.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; draws a direction where the gradient is 0.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      steps: number of steps, static.
      gamma: share in [0, 1] by which the radius changes, `[]` or `[b]`; may be traced.
      init_norm: radius of the first sphere, in image units over the whole image, `[]` or `[b]`; may
        be traced.
      levels: round images to this many values, 0 and 1 among them (256 for 8-bit data, the
        published form); static. Every value of an image off that grid is then changed. Default: no
        rounding.
      targets: class indices `[b]` for the targeted form; success then means that the target was
        reached.

    Returns:
      `Attacked`. `images` are the nearest adversarial images found, or the clean ones where none
      was found; `distance` `[b]` is the l_2 norm of `perturbation` `[b, h, w, c]` (0 where the
      clean image is misclassified, inf where nothing was found); `success` is whether it is finite.
      `loss` is the margin of the returned image.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.6)
      >>> found = attacks.ddn(lambda x: logits_fn(x - 0.5), jax.random.key(0), images,
      ...     jnp.array([0]), steps=200)
      >>> round(float(found.distance[0]), 2)
      0.2

    References:
      Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial
      Attacks and Defenses, 2019 (arXiv:1811.09600), Algorithm 1.
    """
    as_count(steps, name="steps")
    if levels is not None:
        as_count(levels, name="levels", least=2)
    task = task_of(logits_fn, key, images, labels, targets)
    settings = _Settings(steps, number_of(task, "gamma", gamma, low=0, high=1), levels)
    radius = number_of(task, "init_norm", init_norm, low=0, positive=True)
    if not len(task.images):
        return none_attacked(task)
    state = _State(jnp.zeros_like(task.images), radius, nothing_found(task))
    state = jax.lax.fori_loop(0, steps, lambda i, state: _step(task, settings, i, state), state)
    return attacked(task, state.nearest)


def _step(task: Task, settings: _Settings, i: Array, state: _State) -> _State:
    """Evaluates the iterate, then moves; the last iterate is never evaluated."""

    def objective(logits: Array) -> Array:
        if task.targets is None:
            return cross_entropy(logits, task.labels)
        return -cross_entropy(logits, task.targets)

    delta = state.delta
    logits, _, grad = follow(task, delta, objective)
    hit, most = reached(task, logits), farthest(task.images, "l2")
    nearest = nearer(
        state.nearest, delta, norm_of(moved(task, delta), "l2"), hit,
        margin(logits, task.labels), most,
    )  # fmt: skip
    first, last = (jnp.asarray(size, delta.dtype) for size in STEP_SIZES)
    delta = delta + cosine(i, settings.steps, first, last) * _direction(task, i, grad)
    radius = state.radius * jnp.where(hit, 1 - settings.gamma, 1 + settings.gamma)
    radius = jnp.minimum(radius, most)
    length = norm_of(delta, "l2")
    delta = delta * column(radius / jnp.where(length > 0, length, 1))
    return _State(_rounded(task, delta, settings.levels), radius, nearest)


def _direction(task: Task, i: Array, grad: Array) -> Array:
    """The gradient's direction, or a random one where the gradient is 0."""
    length = norm_of(grad, "l2")
    draw = jax.vmap(lambda key: jax.random.normal(key, grad.shape[1:], grad.dtype))
    flat = length < 1e-12
    return where(flat, draw(fold_keys(task.keys, i)), grad / column(jnp.where(flat, 1, length)))


def _rounded(task: Task, delta: Array, levels: int | None) -> Array:
    """The perturbation of the image clipped to the box, and rounded to the grid if there is one."""
    image = jnp.clip(task.images + delta, 0, 1)
    if levels is not None:
        image = jnp.round(image * (levels - 1)) / (levels - 1)
    return image - task.images
