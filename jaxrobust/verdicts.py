"""What logits say of labels: the class that is predicted, and whether it is the right one."""

import jax.numpy as jnp
from jax import Array


def hard_labels(labels: Array) -> Array:
    """Class indices `[b]` of hard or soft labels."""
    return labels if labels.ndim == 1 else jnp.argmax(labels, -1)


def predicted(logits: Array) -> Array:
    """Class `[b]` int32 of the largest logit, the first of equals; -1, no class, for NaN logits."""
    return jnp.where(has_nan(logits), -1, jnp.argmax(logits, -1).astype(jnp.int32))


def has_nan(logits: Array) -> Array:
    """`[b]` bool."""
    return jnp.any(jnp.isnan(logits), -1)


def misclassified(logits: Array, labels: Array) -> Array:
    """`[b]` bool. Ties go to the first class; NaN logits are never right, for no label.

    Of one logit the sign decides, for labels -1 and +1.
    """
    hard = hard_labels(labels).astype(jnp.int32)
    if logits.shape[-1] == 1:
        return ~(logits[..., 0] * hard.astype(logits.dtype) > 0)
    return (predicted(logits) != hard) | has_nan(logits)
