"""Surrogate losses phi of the margin, with the closed forms of TRADES' Table 1."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import xlogy

Function = Callable[[Array], Array]


class Surrogate(NamedTuple):
    """A surrogate loss and what theory knows of it in closed form; all act elementwise.

    Attributes:
      phi: loss of the margin f(x)y; falls, is at least 0, and phi(0) = 1.
      optimal_risk: H(eta), the least expected phi where P(Y = +1) is eta.
      psi: the psi-transform of theta in [-1, 1].
      psi_inverse: the theta in [0, 1] with psi(theta) = v; 1 where v exceeds psi(1) = 1, and 0
        where v is negative.
    """

    phi: Function
    optimal_risk: Function
    psi: Function
    psi_inverse: Function


def surrogate(name: str) -> Surrogate:
    r"""The named surrogate loss.

    ==============  ========================  ============================================
    name            phi(a)                    psi(theta)
    ==============  ========================  ============================================
    hinge           max(0, 1 - a)             abs(theta)
    sigmoid         1 - tanh(a)               abs(theta)
    exponential     exp(-a)                   1 - sqrt(1 - theta^2)
    logistic        log2(1 + exp(-a))         1 - entropy in bits of (1 + theta) / 2
    ==============  ========================  ============================================

    Args:
      name: one of the names above.

    Returns:
      `Surrogate`.

    Raises:
      ValueError: for an unknown name; the message lists the valid ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> exponential = theory.surrogate("exponential")
      >>> round(float(exponential.psi(jnp.array(0.6))), 6)
      0.2
      >>> round(float(exponential.psi_inverse(jnp.array(0.2))), 6)
      0.6

    References:
      Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, 2019
      (arXiv:1901.08573), Table 1. Bartlett, Jordan and McAuliffe, Convexity, Classification, and
      Risk Bounds, JASA 101, 2006, Section 2.
    """
    if name not in SURROGATES:
        raise ValueError(f"surrogate name {name!r} is unknown; choose from {sorted(SURROGATES)}")
    return SURROGATES[name]


def _entropy_bits(eta: Array) -> Array:
    return -(xlogy(eta, eta) + xlogy(1 - eta, 1 - eta)) / jnp.log(jnp.asarray(2, eta.dtype))


def _logistic_psi(theta: Array) -> Array:
    return 1 - _entropy_bits((1 + theta) / 2)


def _bisected(psi: Function) -> Function:
    """The inverse on [0, 1] of a psi that rises there."""

    def inverse(v: Array) -> Array:
        def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bounds
            middle = (low + high) / 2
            below = psi(middle) <= v
            return jnp.where(below, middle, low), jnp.where(below, high, middle)

        bounds = (jnp.zeros_like(v), jnp.ones_like(v))
        # The upper end: a theta that is too large only makes a bound that uses it looser.
        theta = jax.lax.fori_loop(0, jnp.finfo(v.dtype).nmant + 4, halve, bounds)[1]
        return jnp.where(v <= 0, 0, theta)

    return inverse


def _clipped(v: Array) -> Array:
    return jnp.clip(v, 0, 1)


SURROGATES = {
    "hinge": Surrogate(
        phi=lambda a: jax.nn.relu(1 - a),
        optimal_risk=lambda eta: 1 - jnp.abs(2 * eta - 1),
        psi=jnp.abs,
        psi_inverse=_clipped,
    ),
    "sigmoid": Surrogate(
        phi=lambda a: 1 - jnp.tanh(a),
        optimal_risk=lambda eta: 1 - jnp.abs(2 * eta - 1),
        psi=jnp.abs,
        psi_inverse=_clipped,
    ),
    "exponential": Surrogate(
        phi=lambda a: jnp.exp(-a),
        optimal_risk=lambda eta: 2 * jnp.sqrt(eta * (1 - eta)),
        psi=lambda theta: 1 - jnp.sqrt((1 - theta) * (1 + theta)),
        # 1 - (1 - v)^2, without the cancellation at small v.
        psi_inverse=lambda v: jnp.sqrt(_clipped(v) * (2 - _clipped(v))),
    ),
    "logistic": Surrogate(
        phi=lambda a: jax.nn.softplus(-a) / jnp.log(jnp.asarray(2, a.dtype)),
        optimal_risk=_entropy_bits,
        psi=_logistic_psi,
        psi_inverse=_bisected(_logistic_psi),
    ),
}
