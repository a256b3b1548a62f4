"""Passes of a network in a loop, each depending on the one before."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.losses import cross_entropy


def forward_passes(logits_fn: Callable[[Array], Array], images: Array, count: int) -> Array:
    """Forward passes without a gradient.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      images: of the first pass.
      count: of the passes.

    Returns:
      The images after all passes, moved by rounding only.
    """

    def again(_: int, x: Array) -> Array:
        return x + 1e-9 * jnp.mean(logits_fn(x), -1).reshape(-1, 1, 1, 1)

    return jax.lax.fori_loop(0, count, again, images)


def gradient_passes(
    logits_fn: Callable[[Array], Array], images: Array, labels: Array, count: int
) -> Array:
    """Forward passes with the gradient of the cross-entropy to the images.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      images: of the first pass.
      labels: `[b]`.
      count: of the passes.

    Returns:
      The images after all passes, moved by rounding only.
    """
    gradient = jax.grad(lambda x: jnp.sum(cross_entropy(logits_fn(x), labels)))
    return jax.lax.fori_loop(0, count, lambda _, x: x + 1e-9 * gradient(x), images)
