"""Adam's direction, per value of a perturbation."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

DECAYS = 0.9, 0.999
EPSILON = 1e-8


class Moments(NamedTuple):
    """Running means of gradients and of their squares."""

    first: Array
    second: Array


def no_moments(images: Array) -> Moments:
    """Before the first step."""
    return Moments(jnp.zeros_like(images), jnp.zeros_like(images))


def after_gradient(moments: Moments, grad: Array) -> Moments:
    """The moments after one more gradient."""
    first, second = DECAYS
    return Moments(
        first * moments.first + (1 - first) * grad,
        second * moments.second + (1 - second) * grad * grad,
    )


def scales(moments: Moments, step: Array) -> tuple[Array, Array]:
    """Unbiased mean and, as the divisor, root mean square after step `step`, counted from 0."""
    count = (step + 1).astype(moments.first.dtype)
    first, second = (1 - decay**count for decay in DECAYS)
    return moments.first / first, jnp.sqrt(moments.second) / jnp.sqrt(second) + EPSILON


def adam_step(moments: Moments, grad: Array, step: Array) -> tuple[Moments, Array]:
    """The moments after a gradient, and the resulting direction."""
    moments = after_gradient(moments, grad)
    mean, divisor = scales(moments, step)
    return moments, mean / divisor
