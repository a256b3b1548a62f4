"""Shared by the l_inf attacks: the intersection of ball and box, and one query of the network."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attackable import judging, prepare
from jaxrobust.attacks._attacked import finite
from jaxrobust.inputs import as_logits
from jaxrobust.precision import shown
from jaxrobust.typing import LogitsFn, Loss


def inside(x: Array, images: Array, radius: Array) -> Array:
    """The nearest points in the box that are at most `radius` `[b]` from the images."""
    reach = radius[:, None, None, None]
    return jnp.clip(images + jnp.clip(x - images, -reach, reach), 0, 1)


def uniform(keys: Array, images: Array) -> Array:
    """Noise in [-1, 1) for each example, from its own key."""

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, images.shape[1:], images.dtype, -1, 1)

    return jax.vmap(draw)(keys)


def uphill(
    logits_fn: LogitsFn, loss: Loss, x: Array, clean: Array, labels: Array
) -> tuple[Array, Array]:
    """Logits at `x`, and the gradient of the loss, as the network sees images of `clean`'s type."""
    judge = prepare(judging(logits_fn, loss, labels), clean)

    def total(x: Array) -> tuple[Array, Array]:
        losses, logits = judge(shown(x, clean))
        return jnp.sum(losses), logits

    grads, logits = jax.grad(total, has_aux=True)(x)
    return as_logits(logits, "logits"), finite(grads)
