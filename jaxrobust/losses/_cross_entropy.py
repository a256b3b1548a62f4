"""Cross-entropy with hard or soft labels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import (
    aligned,
    as_array,
    as_logits,
    as_number,
    as_probabilities,
    at_label,
    pick,
)


def cross_entropy(logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0) -> Array:
    r"""Cross-entropy of the softmax of `logits` against `labels`, one value per example.

    .. math:: \ell = -\sum_c t_c \log p_c, \qquad t = (1 - s)\, y + s / k

    Args:
      logits: `[..., k]`, any floating dtype; half precision is computed in float32.
      labels: integer class indices `[...]`, or probabilities `[..., k]` of a floating dtype.
        Leading axes may be missing. -1 marks an unlabelled example, which contributes 0 (without
        smoothing).
      label_smoothing: `s` in [0, 1]; the label keeps `1 - s + s/k`, every other class `s/k`.

    Returns:
      `[...]`, float32 (float64 for float64 logits). The mean is the caller's.

    Raises:
      ValueError: if `logits` are not floating-point `[..., k]`, or labels have another shape, are
        no classes, or no probabilities.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import cross_entropy
      >>> cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3])).tolist()
      [1.3862943649291992, 1.3862943649291992]
    """
    as_number(label_smoothing, name="label_smoothing", low=0, high=1, lead=())
    if jnp.issubdtype(as_array(labels, name="labels").dtype, jnp.floating):
        targets, scores = aligned(
            labels=as_probabilities(labels, rank=np.ndim(logits)), logits=logits, classes=2
        )
        log_p = jax.nn.log_softmax(scores)
        hard = -jnp.sum(targets * log_p, -1)
    else:
        scores, mask = at_label(as_logits(logits, "logits", classes=2), labels, unlabelled=True)
        log_p = jax.nn.log_softmax(scores)
        hard = -pick(log_p, mask)
    if isinstance(label_smoothing, int | float) and label_smoothing == 0:
        return hard
    return (1 - label_smoothing) * hard - label_smoothing * jnp.mean(log_p, -1)
