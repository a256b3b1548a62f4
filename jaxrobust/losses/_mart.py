"""MART's loss."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import aligned, as_number, at_label, pick


def mart(
    clean_logits: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, beta: ArrayLike
) -> Array:
    r"""MART: boosted cross-entropy on adversarial images, and a KL weighted by clean errors.

    .. math:: -\log p'_y - \log(1.0001 - \max_{c \ne y} p'_c)
              + \beta\, \mathrm{KL}(p \,\|\, p') (1 - p_y)

    with `p` of clean and `p'` of adversarial images. The small constants are the authors'.

    Args:
      clean_logits: `[..., k]`.
      adv_logits: `[..., k]`.
      labels: integer class indices `[...]`.
      beta: weight of the second term; 5 or 6. May be traced.

    Returns:
      `[...]`, float32 (float64 for float64 logits).

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import mart
      >>> z = jnp.zeros((1, 2))
      >>> round(float(mart(z, z, jnp.array([1]), beta=6.0)[0]), 4)
      1.3861

    References:
      Wang et al., Improving Adversarial Robustness Requires Revisiting Misclassified Examples,
      2020 (ICLR), Eq. 11.
    """
    clean, adv = aligned(clean_logits=clean_logits, adv_logits=adv_logits, classes=2)
    adv, mask = at_label(adv, labels)
    as_number(beta, name="beta", low=0, lead=adv.shape[:-1])
    clean = jnp.broadcast_to(clean, adv.shape)
    log_adv, log_clean = jax.nn.log_softmax(adv), jax.nn.log_softmax(clean)
    p_adv, p_clean = jnp.exp(log_adv), jnp.exp(log_clean)
    other = jnp.max(jnp.where(mask, jnp.full_like(p_adv, -1), p_adv), -1)
    boosted = -pick(log_adv, mask) - jnp.log(1.0001 - other + 1e-12)
    divergence = jnp.sum(p_clean * (log_clean - jnp.log(p_adv + 1e-12)), -1)
    weight = 1.0000001 - pick(p_clean, mask)
    return boosted + jnp.asarray(beta, boosted.dtype) * divergence * weight
