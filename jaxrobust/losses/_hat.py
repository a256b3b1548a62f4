"""HAT's loss: TRADES and a helper example beyond the adversarial one."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import aligned, as_number, at_label, pick
from jaxrobust.losses._cross_entropy import cross_entropy
from jaxrobust.losses._divergences import kl_divergence


def hat(
    natural: ArrayLike,
    adversarial: ArrayLike,
    helper: ArrayLike,
    labels: ArrayLike,
    helper_labels: ArrayLike,
    *,
    beta: ArrayLike,
    gamma: ArrayLike,
    label_smoothing: float = 0.0,
) -> Array:
    r"""Helper-based adversarial training: TRADES, and helper examples with labels of their own.

    .. math:: \ell = \mathrm{CE}(z, y) + \beta\, \mathrm{KL}(p(x) \,\|\, p(x'))
              + \gamma\, \mathrm{CE}(z(x_h), y_h)

    A helper example lies beyond the adversarial one, where an accurate network names the class.

    Args:
      natural: `[..., k]`, logits of the natural images.
      adversarial: `[..., k]`, logits of the adversarial images.
      helper: `[..., k]`, logits of the helper images.
      labels: integer class indices `[...]`.
      helper_labels: integer class indices `[...]` of the helper images.
      beta: weight of the divergence. May be traced.
      gamma: weight of the helper examples. May be traced.
      label_smoothing: of the natural term alone, as in `cross_entropy`.

    Returns:
      `[...]`, float32 (float64 for float64 logits). The authors' scalar is its mean.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import hat
      >>> z, y = jnp.zeros((1, 4)), jnp.array([2])
      >>> hat(z, z, z, y, y, beta=2.5, gamma=1.0).tolist()  # 2 log 4
      [2.7725887298583984]

    References:
      Rade and Moosavi-Dezfooli, Reducing Excessive Margin to Achieve a Better Accuracy vs.
      Robustness Trade-off, 2022 (ICLR), Eq. 5.
    """
    clean, adv, beyond = aligned(natural=natural, adversarial=adversarial, helper=helper, classes=2)
    loss = cross_entropy(clean, labels, label_smoothing=label_smoothing)
    for name, value in (("beta", beta), ("gamma", gamma)):
        as_number(value, name=name, low=0, lead=loss.shape)
    loss += jnp.asarray(beta, loss.dtype) * kl_divergence(clean, adv)
    return loss + jnp.asarray(gamma, loss.dtype) * _helper_error(beyond, helper_labels)


def _helper_error(logits: Array, helper_labels: ArrayLike) -> Array:
    """Cross-entropy against labels that a message must call helper_labels."""
    scores, mask = at_label(logits, helper_labels, "helper_labels")
    return -pick(jax.nn.log_softmax(scores), mask)
