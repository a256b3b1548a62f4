"""What logits say of labels: the class that is predicted, and whether it is the right one."""

import jax.numpy as jnp
from jax import Array


def hard_labels(labels: Array) -> Array:
    """Class indices `[b]` of hard or soft labels."""
    return labels if labels.ndim == 1 else jnp.argmax(labels, -1)


def predicted(logits: Array) -> Array:
    """Class `[b]` int32 of the largest logit, the first of equals; -1 where `has_nan`."""
    return jnp.where(has_nan(logits), -1, jnp.argmax(logits, -1).astype(jnp.int32))


def has_nan(logits: Array) -> Array:
    """`[b]` bool: NaN, or +inf, of which softmax and losses make NaN. -inf masks a class."""
    return jnp.any(jnp.isnan(logits) | (logits == jnp.inf), -1)


def misclassified(logits: Array, labels: Array) -> Array:
    """`[b]` bool. Ties go to the first class; where `has_nan`, no label is right.

    Of one logit the sign decides: labels 1 are the positive class, -1 and 0 the negative one.
    """
    hard = hard_labels(labels).astype(jnp.int32)
    if logits.shape[-1] == 1:
        signs = jnp.where(hard > 0, 1, -1).astype(logits.dtype)
        return ~(logits[..., 0] * signs > 0) | has_nan(logits)
    return (predicted(logits) != hard) | has_nan(logits)
