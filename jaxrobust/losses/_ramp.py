"""RAMP's loss: two attacks of different norms, and their predictions drawn together."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned, as_number
from jaxrobust.losses._cross_entropy import cross_entropy
from jaxrobust.losses._divergences import kl_divergence
from jaxrobust.verdicts import misclassified


def ramp(
    source: ArrayLike,
    target: ArrayLike,
    best: ArrayLike,
    labels: ArrayLike,
    *,
    lbd: ArrayLike,
    share: ArrayLike | None = None,
) -> Array:
    r"""RAMP: cross-entropy on the stronger attack's image, and logit pairing between two attacks.

    .. math:: \ell = \mathrm{CE}(z(x_b), y) + \frac{\lambda}{s}
              [\arg\max z(x_s) = y]\, \mathrm{KL}(p(x_s) \,\|\, p(x_t))

    The pairing acts on examples whose source image is still classified correctly; `s` is their
    share, so its mean over the batch is a mean over them. It is 0 if there are none.

    Args:
      source: `[b, k]`, logits of the source norm's adversarial images (l_inf in the paper).
      target: `[b, k]`, logits of the target norm's (l_1).
      best: `[b, k]`, logits of the images with the higher attack loss of the two.
      labels: integer class indices `[b]`.
      lbd: weight of the pairing. May be traced.
      share: `[]`, the part of the whole batch whose source image is classified correctly. Default:
        of the given examples.

    Returns:
      `[b]`, float32 (float64 for float64 logits). The authors' scalar is its mean.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import ramp
      >>> z = jnp.zeros((1, 4))
      >>> ramp(z, z, z, jnp.array([2]), lbd=5.0).tolist()
      [1.3862943649291992]

    References:
      Jiang and Singh, RAMP: Boosting Adversarial Robustness Against Multiple l_p Perturbations,
      2024 (arXiv:2402.06827), Eq. 3.
    """
    from_source, to_target, chosen = aligned(source=source, target=target, best=best, classes=2)
    if chosen.ndim != 2:
        raise InputError(f"source, target and best must be [b, k], got shape {chosen.shape}")
    loss = cross_entropy(chosen, labels)
    as_number(lbd, name="lbd", low=0, lead=loss.shape)
    if share is not None:
        as_number(share, name="share", low=0, high=1, lead=())
    right = (~misclassified(from_source, jnp.asarray(labels))).astype(loss.dtype)
    part = jnp.mean(right) if share is None else jnp.asarray(share, loss.dtype)
    weight = jnp.where(part > 0, right / jnp.where(part > 0, part, 1), 0)
    return loss + jnp.asarray(lbd, loss.dtype) * weight * kl_divergence(from_source, to_target)
