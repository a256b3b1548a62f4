"""PDPGD: primal-dual proximal gradient descent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._adam import Moments, after_gradient, no_moments, scales
from jaxrobust.attacks._attacked import Attacked, where
from jaxrobust.attacks._nearest import (
    Nearest,
    Task,
    attacked,
    clipped,
    follow,
    gap,
    look_at_clean,
    nearer,
    none_attacked,
    nothing_found,
    number_of,
    reached,
    start_of,
    task_of,
)
from jaxrobust.attacks._norms import column, norm_of
from jaxrobust.attacks._proximal import proximal
from jaxrobust.inputs import as_choice, as_count
from jaxrobust.losses import margin
from jaxrobust.precision import shown
from jaxrobust.typing import ANY_NORMS, AnyNorm, LogitsFn
from jaxrobust.verdicts import has_nan


class _Settings(NamedTuple):
    """What does not change during a run; numbers per example."""

    norm: AnyNorm
    steps: int
    primal_lr: Array
    primal_lr_decrease: Array
    dual_lr: Array
    dual_lr_decrease: Array
    dual_ema: Array
    dual_most: Array  # the dual variable stays between minus and plus this
    proximal_steps: int
    proximal_tolerance: Array


class _State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    delta: Array
    moments: Moments
    dual: Array  # logarithm of the weight of the margin over that of the norm
    shares: Array  # [b, 2]: running mean of the weights of norm and margin, which sum to 1
    nearest: Nearest


def pdpgd(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: AnyNorm = "linf",
    steps: int = 500,
    primal_lr: ArrayLike = 0.1,
    primal_lr_decrease: ArrayLike = 0.01,
    dual_ratio_init: ArrayLike = 0.01,
    dual_lr: ArrayLike = 0.1,
    dual_lr_decrease: ArrayLike = 0.1,
    dual_ema: ArrayLike = 0.9,
    dual_min_ratio: ArrayLike = 1e-6,
    proximal_steps: int = 5,
    proximal_tolerance: ArrayLike = 0.01,
    targets: ArrayLike | None = None,
    start: ArrayLike | None = None,
) -> Attacked:
    r"""Primal-dual proximal gradient descent on the norm, subject to misclassification.

    .. math:: \min_\delta \max_\lambda \; s_0 \|\delta\| + s_1\, \mathrm{softplus}(m(x + \delta)),
        \qquad (s_0, s_1) = \mathrm{softmax}(0, \lambda)

    where m is the label's margin. Adam descends the margin's part. The norm's part enters through
    its proximal operator in Adam's metric, which takes a few inner iterations. The dual variable
    rises while the image is classified correctly and falls otherwise.

    A step costs one forward and one backward pass. A given `start` costs one more forward pass.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; the attack draws nothing.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "l0", "l1", "l2" or "linf", over all values of an image; "l0" counts changed values
        (`h w c`), not pixels, and minimises the sum of the 2/3-th powers instead. Static.
      steps: number of steps, at least 2, static.
      primal_lr: Adam's initial learning rate, in image units. Like all numbers below it is `[]` or
        `[b]` and may be traced.
      primal_lr_decrease: factor in (0, 1] of the learning rate after the last step.
      dual_ratio_init: initial ratio of the norm's weight to the margin's weight, in (0, 1].
      dual_lr: initial step size of the dual variable.
      dual_lr_decrease: factor in [0, 1] of the dual step size in the last step.
      dual_ema: decay in [0, 1] of the running mean of the weights.
      dual_min_ratio: lower bound in (0, 1] of the ratio of the weights, in both directions.
      proximal_steps: iterations of the proximal operator at most, static.
      proximal_tolerance: relative change at which these iterations stop.
      targets: class indices `[b]` for the targeted form; success then means that the target was
        reached.
      start: the initial perturbation `[b, h, w, c]`, clipped to the box. Default: 0.

    Returns:
      `Attacked`. `images` are the nearest adversarial images found, or the clean ones where none
      was found; `distance` `[b]` is the norm of `perturbation` `[b, h, w, c]` (0 where the clean
      image is misclassified, inf where nothing was found); `success` is whether it is finite.
      `loss` is the margin of the returned image. A tie of the two largest logits does not count as
      success.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.6)
      >>> found = attacks.pdpgd(lambda x: logits_fn(x - 0.5), jax.random.key(0), images,
      ...     jnp.array([0]), steps=200)
      >>> round(float(found.distance[0]), 2)
      0.1

    References:
      Matyasko and Chau, PDPGD: Primal-Dual Proximal Gradient Descent Adversarial Attack, 2021
      (arXiv:2106.01538), with primal and dual steps from the same point.
    """
    as_choice(norm, name="norm", choices=ANY_NORMS)
    as_count(steps, name="steps", least=2)
    as_count(proximal_steps, name="proximal_steps")
    task = task_of(logits_fn, key, images, labels, targets)
    ratio = number_of(task, "dual_ratio_init", dual_ratio_init, low=0, high=1, positive=True)
    least = number_of(task, "dual_min_ratio", dual_min_ratio, low=0, high=1, positive=True)
    falls = {"low": 0, "high": 1, "positive": True}
    settings = _Settings(
        norm=norm,
        steps=steps,
        primal_lr=number_of(task, "primal_lr", primal_lr, low=0),
        primal_lr_decrease=number_of(task, "primal_lr_decrease", primal_lr_decrease, **falls),
        dual_lr=number_of(task, "dual_lr", dual_lr, low=0),
        dual_lr_decrease=number_of(task, "dual_lr_decrease", dual_lr_decrease, low=0, high=1),
        dual_ema=number_of(task, "dual_ema", dual_ema, low=0, high=1),
        dual_most=-jnp.log(least),
        proximal_steps=proximal_steps,
        proximal_tolerance=number_of(task, "proximal_tolerance", proximal_tolerance, low=0),
    )
    delta = None if start is None else start_of(task, start)
    if not len(task.images):
        return none_attacked(task)
    state = _begin(task, settings, -jnp.log(ratio), delta)
    state = jax.lax.fori_loop(0, steps, lambda i, state: _step(task, settings, i, state), state)
    return attacked(task, state.nearest)


def _begin(task: Task, settings: _Settings, dual: Array, start: Array | None) -> _State:
    nearest = nothing_found(task) if start is None else look_at_clean(task, settings.norm)
    delta = jnp.zeros_like(task.images) if start is None else start
    return _State(delta, no_moments(task.images), dual, _shares(dual), nearest)


def _step(task: Task, settings: _Settings, i: Array, state: _State) -> _State:
    """Evaluates the iterate, then moves; the last iterate is never evaluated."""
    delta = state.delta
    logits, _, grad = follow(task, delta, lambda logits: jax.nn.softplus(gap(task, logits)))
    sign = _sign(task, logits, delta)
    hit, loss = sign < 0, margin(logits, task.labels)
    # The norm of the image as it is, whose last digits differ from those of the perturbation.
    image = shown(task.images + delta, task.clean).astype(delta.dtype)
    size = norm_of(image - task.images, settings.norm)
    nearest = nearer(state.nearest, delta, size, hit, loss)
    moments = after_gradient(state.moments, grad)
    part = i.astype(delta.dtype)
    rate = settings.primal_lr * settings.primal_lr_decrease ** (part / settings.steps)
    left = (settings.steps - 1 - part) / (settings.steps - 1)
    dual_rate = settings.dual_lr * (
        left * (1 - settings.dual_lr_decrease) + settings.dual_lr_decrease
    )
    dual = jnp.clip(state.dual + dual_rate * sign, -settings.dual_most, settings.dual_most)
    ema = settings.dual_ema[:, None]
    return _State(
        _descend(task, settings, i, delta, moments, state.shares, rate),
        moments,
        dual,
        ema * state.shares + (1 - ema) * _shares(dual),
        nearest,
    )


def _sign(task: Task, logits: Array, delta: Array) -> Array:
    """`[b]`: -1 where the goal is reached, 1 where it is not, 0 for a tie."""
    sign = jnp.sign(gap(task, logits)).astype(delta.dtype)
    if task.targets is not None:
        return jnp.where(has_nan(logits), 1, sign)
    # Ties of the clean image are errors or not, as everywhere in the library.
    error = ~jnp.any(delta != 0, (1, 2, 3)) & reached(task, logits)
    return jnp.where(has_nan(logits) | error, -1, sign)


def _shares(dual: Array) -> Array:
    """The weights of norm and margin, `[b, 2]`."""
    return jax.nn.softmax(jnp.stack([jnp.zeros_like(dual), dual], -1))


def _descend(
    task: Task,
    settings: _Settings,
    i: Array,
    delta: Array,
    moments: Moments,
    shares: Array,
    rate: Array,
) -> Array:
    """Adam's step, then the proximal operator of the norm in Adam's metric.

    The metric is divided by its largest value, so that plain proximal steps of length 1 converge.
    """
    mean, divisor = scales(moments, i)
    aim = clipped(task, delta - column(rate) * mean / divisor)
    largest = norm_of(divisor, "linf")
    weight = shares[:, 0] / shares[:, 1] * rate / largest
    metric = divisor / column(largest)

    def improve(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        point, going = carry
        new = proximal(point - metric * (point - aim), weight, settings.norm)
        new = clipped(task, new)
        change, size = norm_of(new - point, "l2"), norm_of(new, "l2")
        # Without the quotient: 0 / 0 would be NaN.
        return where(going, new, point), change > settings.proximal_tolerance * size

    start = aim, jnp.ones(len(delta), bool)
    return jax.lax.fori_loop(0, settings.proximal_steps, improve, start)[0]
