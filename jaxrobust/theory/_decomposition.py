"""TRADES' decomposition: robust error = natural error + boundary error."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.theory._extremes import Extremes


class Errors(NamedTuple):
    """Natural, boundary and robust error: booleans per example, or their probabilities.

    Attributes:
      natural: f(x)y <= 0.
      boundary: f(x)y > 0, and the ball around x reaches the decision boundary.
      robust: f(x')y <= 0 for some x' of the ball.
    """

    natural: Array
    boundary: Array
    robust: Array


def errors(extremes: Extremes, labels: ArrayLike) -> Errors:
    r"""The three errors of every example, each from its own definition.

    `robust == natural | boundary`, and the two on the right exclude each other: so robust error
    is the sum of natural and boundary error, for every example and exactly.

    Args:
      extremes: of the classifier over the balls.
      labels: -1 or +1, `[n]`.

    Returns:
      `Errors` of booleans `[n]`. A score of 0 is an error for both labels, as in the paper.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.piecewise_extremes([0.5], [-1.0, 1.0], [0.1, 0.4, 0.7], eps=0.2)
      >>> [v.tolist() for v in theory.errors(found, [-1, -1, -1])]
      [[False, False, True], [False, True, False], [False, True, True]]

    References:
      Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, 2019
      (arXiv:1901.08573), Section 2.
    """
    score, lowest, highest = extremes
    signs = jnp.asarray(labels).astype(score.dtype)
    return Errors(
        natural=score * signs <= 0,
        boundary=near_boundary(extremes) & (score * signs > 0),
        robust=jnp.where(signs > 0, lowest, -highest) <= 0,
    )


def near_boundary(extremes: Extremes) -> Array:
    """Whether the ball around x has an x' with f(x')f(x) <= 0, whatever the label.

    Args:
      extremes: of the classifier over the balls.

    Returns:
      Booleans `[n]`.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.linear_extremes([1.0], 0.0, [[0.1], [-0.4]], norm="linf", eps=0.2)
      >>> theory.near_boundary(found).tolist()
      [True, False]
    """
    # By signs: the product f(x')f(x) of two small scores would underflow to 0.
    score, lowest, highest = extremes
    return jnp.where(score > 0, lowest <= 0, jnp.where(score < 0, highest >= 0, True))


def risks(extremes: Extremes, *, mass: ArrayLike, eta: ArrayLike) -> Errors:
    r"""Natural, boundary and robust error on a discrete distribution.

    Args:
      extremes: of the classifier over the balls around the points of the support.
      mass: `[n]`, the probability of each point.
      eta: `[n]`, :math:`\eta(x) = P(Y = +1 | X = x)`.

    Returns:
      `Errors` of probabilities `[]`.

    Example:
      >>> from jaxrobust import theory
      >>> toy = theory.stripes(eps=0.25, points_per_stripe=2)
      >>> found = theory.piecewise_extremes(toy.breaks, toy.bayes, toy.points, eps=0.25)
      >>> [float(v) for v in theory.risks(found, mass=toy.mass, eta=toy.eta)]
      [0.0, 1.0, 1.0]

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Section 2.
    """
    ones = jnp.ones(extremes.score.shape, jnp.int32)
    mass, eta = jnp.asarray(mass), jnp.asarray(eta)

    def expected(positive: Array, negative: Array) -> Array:
        return jnp.sum(mass * (eta * positive.astype(eta.dtype) + (1 - eta) * negative))

    found = zip(errors(extremes, ones), errors(extremes, -ones), strict=True)
    return Errors(*(expected(p, n.astype(eta.dtype)) for p, n in found))


class Stripes(NamedTuple):
    """See `stripes`.

    Attributes:
      points: `[n]`, the support.
      mass: `[n]`, uniform.
      eta: `[n]`, P(Y = +1 | x), 0 or 1.
      breaks: `[m]`, where the stripes meet.
      bayes: `[m + 1]`, the Bayes rule's scores for `piecewise_extremes`.
    """

    points: Array
    mass: Array
    eta: Array
    breaks: Array
    bayes: Array


def stripes(*, eps: float, points_per_stripe: int = 4) -> Stripes:
    """TRADES' toy: stripes of width eps on [0, 1] with labels -1, +1, -1, ...

    The Bayes rule has natural error 0 and is wrong everywhere under attack: (natural, boundary,
    robust) = (0, 1, 1). The rule that always says +1 has (1/2, 0, 1/2): robust error and natural
    error disagree about which is better. The paper's X is uniform on [0, 1]; here it is uniform
    on equidistant points, for which the three errors are the same numbers.

    Args:
      eps: width of the stripes and radius of the attack; 1 / eps must be an even integer.
      points_per_stripe: points of the support in each stripe.

    Returns:
      `Stripes`.

    Raises:
      ValueError: if 1 / eps is not an even integer.

    Example:
      >>> from jaxrobust import theory
      >>> theory.stripes(eps=0.5, points_per_stripe=2).eta.tolist()
      [0.0, 0.0, 1.0, 1.0]

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Section 2, the example of its Table on Bayes rule
      and all-one classifier.
    """
    count = round(1 / eps)
    if count % 2 or abs(count * eps - 1) > 1e-9:
        raise ValueError(f"1 / eps must be an even integer, got eps={eps!r}")
    total = count * points_per_stripe
    positive = np.arange(count) % 2 == 1
    dtype = jnp.result_type(float)
    return Stripes(
        points=jnp.asarray((np.arange(total) + 0.5) / total, dtype),
        mass=jnp.full(total, 1 / total, dtype),
        eta=jnp.asarray(np.repeat(positive, points_per_stripe), dtype),
        breaks=jnp.asarray(np.arange(1, count) / count, dtype),
        bayes=jnp.asarray(np.where(positive, 1, -1), dtype),
    )
