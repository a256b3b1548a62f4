"""The result that every attack returns."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Attacked(NamedTuple):
    """The result of an attack on a batch.

    Attributes:
      images: `[b, h, w, c]` in [0, 1]; the adversarial images, inside the threat's set.
      success: `[b]` bool; the returned image is misclassified.
      loss: `[b]`; the attack's loss at the returned image.
      kappa: `[b]` int32; how many of the visited iterates before the last were classified
        correctly (GAIRAT's measure), or `None` from attacks that do not count this.
      perturbation: the threat's own description of the returned images (a pytree), or `None`.
      distance: `[b]`; norm of the smallest perturbation found, from minimum-norm attacks only.
      queries: `[b]` int32; forward passes used by the example; only from attacks that stop early.
      state: the state of a stateful model after the attack's forward passes, or `None`.
      backwards: `[b]` int32; backward passes, counted like `queries`.
    """

    images: Array
    success: Array
    loss: Array
    kappa: Array | None = None
    perturbation: Any = None
    distance: Array | None = None
    queries: Array | None = None
    state: Any = None
    backwards: Array | None = None


def nothing_attacked(images: Array) -> Attacked:
    """The result of an attack on no images."""
    return Attacked(images, jnp.zeros(0, bool), jnp.zeros(0))


def where(mask: Array, new: Any, old: Any) -> Any:
    """Per example: the leaves of `new` where `mask` `[b]`, of `old` elsewhere."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def finite(grads: Any) -> Any:
    """Gradients made finite: NaN becomes 0, and infinities are clipped."""
    return jax.tree.map(jnp.nan_to_num, grads)
