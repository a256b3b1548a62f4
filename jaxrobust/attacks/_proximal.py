"""Proximal operators of norms, per example."""

import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._balls import onto_ball
from jaxrobust.attacks._norms import column, norm_of
from jaxrobust.typing import AnyNorm


def proximal(values: Array, weight: Array, norm: AnyNorm) -> Array:
    r"""The minimiser of :math:`\frac12 \|u - v\|_2^2 + \mu \|u\|`.

    Args:
      values: `[b, h, w, c]`, the point v.
      weight: `[b]`, the weight mu, at least 0.
      norm: "l1", "l2" or "linf"; "l0" stands for the sum of the 2/3-th powers.

    Returns:
      `[b, h, w, c]`.
    """
    if norm == "l1":
        return jnp.sign(values) * jnp.maximum(jnp.abs(values) - column(weight), 0)
    if norm == "l2":
        size = norm_of(values, "l2")
        left = jnp.maximum(1 - weight / jnp.where(size > 0, size, 1), 0)
        return values * column(jnp.where(size > 0, left, 0))
    if norm == "linf":
        # Moreau: what is left is the way to the ball of the dual norm.
        return values - onto_ball(values, weight, "l1")
    return _two_thirds(values, column(weight))


def _two_thirds(values: Array, weight: Array) -> Array:
    """For the 2/3-norm: the larger root of a quartic where there is one, else 0.

    As published, the root is kept wherever it exists. Up to 14 % beyond that point, 0 would still
    give the smaller value.
    """
    size = jnp.abs(values)
    square = size * size
    inner = square * square / 256 - 8 * weight**3 / 729
    root = jnp.sqrt(jnp.maximum(inner, 0))
    both = jnp.cbrt(square / 16 + root) + jnp.cbrt(jnp.maximum(square / 16 - root, 0))
    some = (inner >= 0) & (both > 0)
    half = jnp.sqrt(jnp.where(some, 2 * both, 1))
    other = jnp.sqrt(jnp.maximum(2 * size / half - half * half, 0))
    return jnp.where(some, jnp.sign(values) / 8 * (half + other) ** 3, 0)
