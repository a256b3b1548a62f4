"""Images and labels that belong together."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs._images import as_images
from jaxrobust.inputs._labels import as_labels


def as_batch(images: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """Images `[b, h, w, c]` and labels `[b]` (or `[b, k]` probabilities) as arrays."""
    checked = jnp.asarray(as_images(images))
    return checked, jnp.asarray(as_labels(labels, batch=len(checked), soft=True, signed=True))
