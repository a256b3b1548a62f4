"""What every loss does with its arguments first: precision, shapes, labels."""

import chex
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def as_logits(logits: ArrayLike, name: str, *, classes: int = 1) -> Array:
    """Logits `[..., k]` in float32 or better.

    Half-precision logits are widened: three digits are not enough for the differences of
    log-probabilities that the losses are made of.
    """
    logits = jnp.asarray(logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise ValueError(f"{name} must be floating-point logits [..., k], got {logits.dtype}")
    if logits.ndim == 0 or logits.shape[-1] < classes:
        raise ValueError(
            f"{name} must be logits [..., k] with k >= {classes} classes, got shape {logits.shape}"
        )
    return logits if logits.dtype.itemsize >= 4 else logits.astype(jnp.float32)


def aligned(**logits: ArrayLike) -> tuple[Array, ...]:
    """Several logits arrays `[..., k]`, broadcast to one shape and one dtype."""
    arrays = [as_logits(value, name) for name, value in logits.items()]
    chex.assert_axis_dimension(
        arrays[1],
        -1,
        arrays[0].shape[-1],
        custom_message=f"{' and '.join(logits)} must have the same number of classes",
    )
    shape = jnp.broadcast_shapes(*(a.shape for a in arrays))
    dtype = np.result_type(*(a.dtype for a in arrays))
    return tuple(jnp.broadcast_to(a, shape).astype(dtype) for a in arrays)


def at_label(logits: Array, labels: ArrayLike, name: str = "labels") -> tuple[Array, Array]:
    """Logits and a boolean mask of the label's entry, broadcast to one shape `[..., k]`.

    A comparison in place of a gather: it fuses, and TPUs run it at full speed.
    """
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"{name} must be integer class indices [...], got {labels.dtype}")
    shape = jnp.broadcast_shapes(logits.shape[:-1], labels.shape)
    classes = logits.shape[-1]
    index = jnp.arange(classes, dtype=labels.dtype).reshape((1,) * len(shape) + (classes,))
    mask = jnp.broadcast_to(labels, shape)[..., None] == index
    return jnp.broadcast_to(logits, (*shape, classes)), mask


def pick(values: Array, mask: Array) -> Array:
    """The entry of the last axis that the one-hot boolean mask selects."""
    return jnp.where(mask, values, jnp.zeros_like(values)).sum(-1)


def as_targets(
    logits: ArrayLike, labels: ArrayLike, label_smoothing: float = 0.0
) -> tuple[Array, Array]:
    """Logits and the label's distribution `[..., k]`: `1 - s` on it, `s / (k - 1)` elsewhere.

    Labels that are probabilities already are taken as they are.
    """
    scores = as_logits(logits, "logits", classes=2)
    if jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        return scores, jnp.asarray(labels, scores.dtype)
    scores, mask = at_label(scores, labels)
    off = label_smoothing / (scores.shape[-1] - 1)
    return scores, jnp.where(mask, 1 - label_smoothing, off).astype(scores.dtype)
