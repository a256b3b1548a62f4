"""The psi-transform of any surrogate loss, computed on a grid from its definition."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

Phi = Callable[[Array], Array]
POINTS, ROUNDS = 257, 6  # each round narrows the interval of the minimum by 128


def conditional_risks(
    phi: Phi, eta: ArrayLike, *, largest_score: float = 40.0
) -> tuple[Array, Array]:
    r"""The optimal conditional risk, and the optimal one with a score of the wrong sign.

    .. math:: H(\eta) = \inf_\alpha \eta \phi(\alpha) + (1 - \eta) \phi(-\alpha), \qquad
              H^-(\eta) = \inf_{\alpha (2 \eta - 1) \le 0} (\text{same})

    Each infimum is the least value on a grid that is narrowed around its best point; for a
    `phi` with several narrow valleys the grid may miss the deepest.

    Args:
      phi: the loss of the margin, elementwise.
      eta: P(Y = +1), `[n]`, floating point in [0, 1].
      largest_score: scores are searched in [-largest_score, largest_score], which stands for
        the extended line.

    Returns:
      H and H^-, each `[n]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> risks = theory.conditional_risks(lambda a: jnp.maximum(0, 1 - a), jnp.array([0.75]))
      >>> [round(float(v[0]), 4) for v in risks]
      [0.5, 1.0]

    References:
      Bartlett, Jordan and McAuliffe, Convexity, Classification, and Risk Bounds, JASA 101, 2006,
      Section 2.
    """
    eta = jnp.asarray(eta)
    low, high = jnp.full_like(eta, -largest_score), jnp.full_like(eta, largest_score)

    def risk(scores: Array) -> Array:
        weight = eta[:, None]
        return weight * phi(scores) + (1 - weight) * phi(-scores)

    wrong_low = jnp.where(eta >= 0.5, low, 0)
    wrong_high = jnp.where(eta <= 0.5, high, 0)
    return _least(risk, low, high), _least(risk, wrong_low, wrong_high)


def _least(risk: Phi, low: Array, high: Array) -> Array:
    """The least of `risk` on [low, high], by rows."""
    share = jnp.linspace(0, 1, POINTS, dtype=low.dtype)[None]

    def narrow(_: int, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        low, high, least = state
        scores = low[:, None] * (1 - share) + high[:, None] * share
        values = risk(scores)
        best = jnp.argmin(values, -1)

        def at(index: Array) -> Array:
            chosen = jnp.clip(index, 0, POINTS - 1)[:, None]
            return jnp.take_along_axis(scores, chosen, axis=-1)[:, 0]

        return at(best - 1), at(best + 1), jnp.minimum(least, jnp.min(values, -1))

    return jax.lax.fori_loop(0, ROUNDS, narrow, (low, high, jnp.full_like(low, jnp.inf)))[2]


def psi_transform(phi: Phi, theta: ArrayLike, *, largest_score: float = 40.0) -> Array:
    r"""The psi-transform on a grid: the convex hull of what a wrong sign costs at least.

    .. math:: \psi = \mathrm{conv}\, \tilde\psi, \qquad
              \tilde\psi(\theta) = H^-((1 + \theta) / 2) - H((1 + \theta) / 2)

    Args:
      phi: the loss of the margin, elementwise.
      theta: `[n]`, rising, from -1 to 1; the hull is taken over these points. Not traced.
      largest_score: see `conditional_risks`.

    Returns:
      psi at every theta, `[n]`.

    Raises:
      ValueError: if theta does not rise from -1 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> theta = jnp.linspace(-1, 1, 5)
      >>> psi = theory.psi_transform(lambda a: jnp.maximum(0, 1 - a), theta)
      >>> [round(float(v), 4) for v in psi]
      [1.0, 0.5, 0.0, 0.5, 1.0]

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Section 3. Bartlett, Jordan and McAuliffe, 2006,
      Definition 2.
    """
    theta = jnp.asarray(theta)
    if float(theta[0]) != -1 or float(theta[-1]) != 1:
        raise ValueError(f"theta must go from -1 to 1, got {float(theta[0])} to {float(theta[-1])}")
    optimal, wrong = conditional_risks(phi, (1 + theta) / 2, largest_score=largest_score)
    return convex_hull(theta, wrong - optimal)


def convex_hull(x: ArrayLike, y: ArrayLike) -> Array:
    """The largest convex function that is nowhere above the given values.

    Args:
      x: `[n]`, rising. Not traced.
      y: `[n]`, values. Not traced.

    Returns:
      The hull at every `x`, `[n]`.

    Raises:
      ValueError: if `x` does not rise.

    Example:
      >>> from jaxrobust import theory
      >>> theory.convex_hull([0.0, 1.0, 2.0], [0.0, 5.0, 2.0]).tolist()
      [0.0, 1.0, 2.0]
    """
    xs, ys = np.asarray(x), np.asarray(y)
    if not np.all(np.diff(xs) > 0):
        raise ValueError(f"x must rise, got {xs[:5].tolist()} ...")
    kept: list[int] = []
    for i in range(len(xs)):
        # Drop the last corner while it lies on or above the chord that passes under it.
        while len(kept) > 1 and _turn(xs, ys, kept[-2], kept[-1], i) <= 0:
            kept.pop()
        kept.append(i)
    return jnp.asarray(np.interp(xs, xs[kept], ys[kept]).astype(ys.dtype))


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> float:
    """Positive where a, b, c turn left: b lies below the chord from a to c."""
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
