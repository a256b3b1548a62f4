"""Norms of perturbations, per example and over all values of an image."""

import jax.numpy as jnp
from jax import Array

from jaxrobust.typing import AnyNorm, Norm

DUAL: dict[str, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def norm_of(values: Array, norm: AnyNorm) -> Array:
    """The norm of each example `[b]`; "l0" counts the non-zero values."""
    values = jnp.abs(values.reshape(len(values), -1))
    if norm == "linf":
        return jnp.max(values, -1)
    if norm == "l1":
        return jnp.sum(values, -1)
    if norm == "l0":
        return jnp.sum((values != 0).astype(values.dtype), -1)
    return jnp.sqrt(jnp.sum(values * values, -1))


def farthest(images: Array, norm: AnyNorm) -> Array:
    """`[b]`: the distance from each image to the farthest corner of the box."""
    return norm_of(jnp.maximum(images, 1 - images), norm)


def column(values: Array) -> Array:
    """`[b]` as `[b, 1, 1, 1]`, to multiply images."""
    return values[:, None, None, None]
