"""SCORE's and Madry's errors: how far an output is from the labels around a point."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import distance

LogitsFn = Callable[[Array], Array]  # points [..., d] -> logits [..., k]
LocalError = Callable[[Array, Array], Array]  # (x [..., d], x' [..., d]) -> [...]
Kind = Literal["madry", "score", "label_shift", "output_shift"]


def local_error(
    kind: Kind, *, labels_fn: LogitsFn, outputs_fn: LogitsFn, measure: str = "kl"
) -> LocalError:
    r"""What an attacker maximises over x', as a function of x and x'.

    ==============  ====================================  ==============================
    kind            error                                 expected maximum
    ==============  ====================================  ==============================
    madry           D(p_d(x) || p_theta(x'))              R_Madry
    score           D(p_d(x') || p_theta(x'))             R_SCORE
    label_shift     D(p_d(x) || p_d(x'))                  C, how fast the labels change
    output_shift    D(p_theta(x) || p_theta(x'))          TRADES' robust term
    ==============  ====================================  ==============================

    Args:
      kind: one of the names above.
      labels_fn: points `[..., d]` -> logits `[..., k]` of p_d, the distribution of labels.
      outputs_fn: the same for the classifier p_theta.
      measure: D, a name of `losses.distance`; its first argument is on the left.

    Returns:
      A function `(x [..., d], x' [..., d]) -> [...]`; gradients with respect to x' also pass
      through p_d(x').

    Raises:
      ValueError: if `kind` or `measure` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> def two(x): return jnp.concatenate([x, -x], -1)
      >>> error = theory.local_error("score", labels_fn=two, outputs_fn=two, measure="l1")
      >>> float(error(jnp.array([0.0]), jnp.array([3.0])))
      0.0

    References:
      Pang et al., Robustness and Accuracy Could Be Reconcilable by (Proper) Definition, 2022
      (arXiv:2202.10103), Section 3.
    """
    sides: dict[str, tuple[LogitsFn, bool, LogitsFn]] = {
        "madry": (labels_fn, False, outputs_fn),
        "score": (labels_fn, True, outputs_fn),
        "label_shift": (labels_fn, False, labels_fn),
        "output_shift": (outputs_fn, False, outputs_fn),
    }
    if kind not in sides:
        raise ValueError(f"kind {kind!r} is unknown; choose from {sorted(sides)}")
    target_fn, target_moves, output_fn = sides[kind]
    divergence = distance(measure)

    def error(x: Array, moved: Array) -> Array:
        return divergence(target_fn(moved if target_moves else x), output_fn(moved))

    return error


def ascend_on_line(
    error: LocalError,
    x: Array,
    start: Array,
    *,
    eps: ArrayLike,
    steps: int = 10,
    step_size: ArrayLike,
) -> Array:
    """Projected sign ascent of a local error over [x - eps, x + eps], without a box.

    The attack of SCORE's toy. `attacks.pgd` is for images in [0, 1]; here points are anywhere.

    Args:
      error: see `local_error`.
      x: points `[n, d]`.
      start: the initial displacement `[n, d]`, added as it is.
      eps: l_inf radius, `[]`. May be traced.
      steps: number of steps, static.
      step_size: `[]`. May be traced.

    Returns:
      The displacement after the last step, `[n, d]`; a constant to gradients.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> def away(x, moved): return jnp.sum((moved - x) ** 2, -1)
      >>> zero = jnp.zeros((1, 1))
      >>> float(theory.ascend_on_line(away, zero, zero + 0.25, eps=1.0, step_size=0.5)[0, 0])
      1.0

    References:
      Pang et al., 2022 (arXiv:2202.10103), the toy demonstration of Section 3.
    """
    x = jnp.asarray(x)
    eps, step_size = jnp.asarray(eps, x.dtype), jnp.asarray(step_size, x.dtype)

    def step(_: int, delta: Array) -> Array:
        grads = jax.grad(lambda d: jnp.sum(error(x, x + d)))(delta)
        return jnp.clip(delta + step_size * jnp.sign(grads), -eps, eps)

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, jnp.asarray(start, x.dtype)))


class Sandwich(NamedTuple):
    """Maxima over one shared set of moves, per point: for metrics |madry - score| <= constant.

    Attributes:
      madry: `[n]`, max D(p_d(x) || p_theta(x')); its mean is R_Madry.
      score: `[n]`, max D(p_d(x') || p_theta(x')); its mean is R_SCORE.
      constant: `[n]`, max D(p_d(x) || p_d(x')); its mean is C.
    """

    madry: Array
    score: Array
    constant: Array

    @property
    def slack(self) -> Array:
        """`[2]`: R_SCORE + C - R_Madry and R_Madry + C - R_SCORE; both >= 0 if it holds."""
        madry, score, constant = (jnp.mean(values) for values in self)
        return jnp.stack([score + constant - madry, madry + constant - score])


def sandwich(
    x: ArrayLike,
    moves: ArrayLike,
    *,
    labels_fn: LogitsFn,
    outputs_fn: LogitsFn,
    measure: str,
) -> Sandwich:
    r"""R_Madry, R_SCORE and C with the maximum over the same moves in all three.

    .. math:: R_{Madry} - C \le R_{SCORE} \le R_{Madry} + C

    holds for every metric D ("l1", "l2", "linf", "sqrt_js") and every classifier, by the
    triangle inequality under the maximum; that is why the maximum must be shared, and cannot be
    left to gradient ascents that stop at different points. It need not hold for "kl", "js" or
    "squared_error": see `largest_violation`.

    Args:
      x: points `[n, d]`.
      moves: displacements `[m, d]`, the finite set that stands for the ball.
      labels_fn: points `[..., d]` -> logits `[..., k]` of p_d.
      outputs_fn: the same for the classifier.
      measure: D, a name of `losses.distance`.

    Returns:
      `Sandwich`.

    Raises:
      ValueError: if `measure` is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> toy = theory.GaussianToy()
      >>> x, moves = jnp.linspace(-2, 3, 11)[:, None], jnp.linspace(-1, 1, 21)[:, None]
      >>> labels = toy.label_logits
      >>> found = theory.sandwich(
      ...     x, moves, labels_fn=labels, outputs_fn=labels, measure="l1")
      >>> float(found.score.max()), bool((found.madry == found.constant).all())
      (0.0, True)

    References:
      Pang et al., 2022 (arXiv:2202.10103), Section 3, the bounds of its theorem.
    """
    x, moves = jnp.asarray(x), jnp.asarray(moves)
    moved = x[:, None] + moves[None]
    still = jnp.broadcast_to(x[:, None], moved.shape)
    found = []
    for kind in ("madry", "score", "label_shift"):
        error = local_error(kind, labels_fn=labels_fn, outputs_fn=outputs_fn, measure=measure)
        found.append(jnp.max(error(still, moved), -1))
    return Sandwich(*found)
