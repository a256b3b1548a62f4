"""SCORE's squared-error loss."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import aligned, as_number, as_targets
from jaxrobust.losses._divergences import squared_error


def score(
    clean_logits: ArrayLike,
    adv_logits: ArrayLike,
    labels: ArrayLike,
    *,
    beta: ArrayLike,
    label_smoothing: float = 0.0,
    clip: ArrayLike = 0.0,
) -> Array:
    r"""SCORE: squared error to the label plus `beta` times that between clean and adversarial.

    .. math:: \ell = \|p(x) - t\|_2^2 + \beta \max(\|p(x') - p(x)\|_2^2 - c, 0)

    Gradients flow through both distributions of the second term, as in the authors' code.

    Args:
      clean_logits: `[..., k]`, of the natural images.
      adv_logits: `[..., k]`, of the adversarial images.
      labels: integer class indices `[...]`, or probabilities `[..., k]` (taken as they are).
      beta: the trade-off; 3 and 4 in the published tables. May be traced.
      label_smoothing: `s` in [0, 1]: the target `t` has `1 - s` on the label and `s / (k - 1)`
        elsewhere (not the convention of `cross_entropy`).
      clip: `c`; robust errors below it are not worth reducing. May be traced.

    Returns:
      `[...]`, float32 (float64 for float64 logits).

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import score
      >>> z = jnp.zeros((1, 2))
      >>> score(z, z, jnp.array([1]), beta=4.0).tolist()
      [0.5]

    References:
      Pang et al., Robustness and Accuracy Could Be Reconcilable by (Proper) Definition, 2022
      (arXiv:2202.10103), Section 5, the LSE objective.
    """
    clean, adv = aligned(clean_logits=clean_logits, adv_logits=adv_logits, classes=2)
    clean, targets = as_targets(clean, labels, label_smoothing)
    natural = jnp.sum(jnp.square(jax.nn.softmax(clean) - targets), -1)
    robust = squared_error(clean, adv)
    as_number(beta, name="beta", low=0, lead=natural.shape)
    as_number(clip, name="clip", low=0, lead=robust.shape)
    clipped = jax.nn.relu(robust - jnp.asarray(clip, robust.dtype))
    return natural + jnp.asarray(beta, natural.dtype) * clipped.astype(natural.dtype)
