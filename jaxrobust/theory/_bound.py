"""TRADES' upper bound on the excess of robust error over the best natural error."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.theory._decomposition import risks
from jaxrobust.theory._extremes import Extremes
from jaxrobust.theory._surrogates import Surrogate


class Bound(NamedTuple):
    """`excess <= with_boundary <= with_surrogate`, each `[]`.

    Attributes:
      excess: robust error minus the least natural error of any classifier.
      with_boundary: psi^-1 of the excess surrogate risk, plus boundary error.
      with_surrogate: psi^-1 of the excess surrogate risk, plus the expectation of the largest
        phi(f(x')f(x) / lam) over the ball: what TRADES trains.
    """

    excess: Array
    with_boundary: Array
    with_surrogate: Array

    @property
    def gap(self) -> Array:
        """The paper's Delta: the right side minus the left."""
        return self.with_surrogate - self.excess


def trades_bound(
    extremes: Extremes,
    *,
    mass: ArrayLike,
    eta: ArrayLike,
    lam: ArrayLike,
    surrogate: Surrogate,
) -> Bound:
    r"""Both sides of TRADES' upper bound, and the step between, on a discrete distribution.

    .. math:: R_{rob}(f) - R^*_{nat}
              \le \psi^{-1}(R_\phi(f) - R^*_\phi) + P[X \in B(DB(f), \epsilon), f(X) Y > 0]
              \le \psi^{-1}(R_\phi(f) - R^*_\phi)
                  + E \max_{X' \in B(X, \epsilon)} \phi(f(X') f(X) / \lambda)

    A sample with labels is the distribution with `mass` 1/n and `eta` 0 or 1, where both best
    risks are 0. The inverse of psi is the generalised one with values in [0, 1]: at most as
    large as the paper's, so both inequalities are at least as sharp.

    No score of the support may be exactly 0: f(x)y <= 0 makes it an error for both labels, which
    psi does not account for (eta 1/2 and score 0 with the hinge: excess 1/2, bound 0).

    Args:
      extremes: of the classifier over the balls around the points of the support.
      mass: `[n]`, the probability of each point.
      eta: `[n]`, P(Y = +1 | x).
      lam: any positive number. May be traced.
      surrogate: the loss; its phi must fall, so that the largest phi is at an extreme score.

    Returns:
      `Bound`.

    Example:
      >>> from jaxrobust import theory
      >>> toy = theory.stripes(eps=0.25)
      >>> found = theory.piecewise_extremes(toy.breaks, toy.bayes, toy.points, eps=0.25)
      >>> bound = theory.trades_bound(
      ...     found, mass=toy.mass, eta=toy.eta, lam=1.0, surrogate=theory.surrogate("hinge"))
      >>> [float(side) for side in bound]
      [1.0, 1.0, 2.0]

    References:
      Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, 2019
      (arXiv:1901.08573), Theorem 3.1.
    """
    mass, eta = jnp.asarray(mass), jnp.asarray(eta)
    score, lowest, highest = extremes
    found = risks(extremes, mass=mass, eta=eta)
    phi = surrogate.phi
    risk = eta * phi(score) + (1 - eta) * phi(-score)
    excess_risk = jnp.sum(mass * (risk - surrogate.optimal_risk(eta)))
    theta = surrogate.psi_inverse(excess_risk)
    product = score * jnp.where(score > 0, lowest, highest)
    surrogate_boundary = jnp.sum(mass * phi(product / jnp.asarray(lam, product.dtype)))
    return Bound(
        excess=found.robust - jnp.sum(mass * jnp.minimum(eta, 1 - eta)),
        with_boundary=theta + found.boundary,
        with_surrogate=theta + surrogate_boundary,
    )
