"""TRADES' loss."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import aligned, as_number
from jaxrobust.losses._cross_entropy import cross_entropy
from jaxrobust.losses._divergences import kl_divergence


def trades(
    clean_logits: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, beta: ArrayLike
) -> Array:
    r"""TRADES: natural error plus `beta` times boundary error, one value per example.

    .. math:: \ell = \mathrm{CE}(z, y) + \beta\, \mathrm{KL}(p(x) \,\|\, p(x'))

    Gradients flow through both distributions of the divergence, as in the authors' code.

    Args:
      clean_logits: `[..., k]`, of the natural images.
      adv_logits: `[..., k]`, of the adversarial images.
      labels: integer class indices `[...]`, or probabilities `[..., k]`.
      beta: the trade-off, 1/lambda of the paper; 6 in its CIFAR-10 table. May be traced.

    Returns:
      `[...]`, float32 (float64 for float64 logits). The authors' scalar is its mean.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import trades
      >>> z = jnp.zeros((1, 4))
      >>> trades(z, z, jnp.array([2]), beta=6.0).tolist()
      [1.3862943649291992]

    References:
      Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, 2019
      (arXiv:1901.08573), Eq. 5.
    """
    clean, adv = aligned(clean_logits=clean_logits, adv_logits=adv_logits, classes=2)
    natural = cross_entropy(clean, labels)
    as_number(beta, name="beta", low=0, lead=natural.shape)
    boundary = kl_divergence(clean, adv)
    return natural + jnp.asarray(beta, natural.dtype) * boundary.astype(natural.dtype)
