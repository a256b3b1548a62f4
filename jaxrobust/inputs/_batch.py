"""Images and labels that belong together."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs._images import as_images
from jaxrobust.inputs._labels import as_labels


def as_batch(
    images: ArrayLike, labels: ArrayLike, *, unlabelled: bool = False
) -> tuple[Array, Array]:
    """Images `[b, h, w, c]` and labels `[b]` (or `[b, k]` probabilities) as arrays.

    With `unlabelled` a label may be -1.
    """
    checked = jnp.asarray(as_images(images))
    kinds: dict[str, Any] = {"soft": True, "signed": True, "unlabelled": unlabelled}
    return checked, jnp.asarray(as_labels(labels, batch=len(checked), **kinds))
