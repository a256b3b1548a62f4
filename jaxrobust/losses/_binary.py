"""Losses of one-logit classifiers: labels -1 and +1, the sign of the logit decides."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned, as_array, as_logits, as_number, concrete


def binary_trades(
    clean_logits: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, lam: ArrayLike
) -> Array:
    r"""Binary TRADES with the hinge loss: natural error plus boundary error.

    .. math:: \ell = \max(0, 1 - f(x) y) + \max(0, 1 - f(x') f(x) / \lambda)

    The second term is `binary_boundary`, which the attack maximises.

    Args:
      clean_logits: `[..., 1]`, of the natural images.
      adv_logits: `[..., 1]`, of the adversarial images.
      labels: -1 or +1, `[...]`.
      lam: the lambda of the paper; 5 in the authors' MNIST code, where its flag is called beta.
        May be traced.

    Returns:
      `[...]`, float32 (float64 for float64 logits). The authors' scalar is its mean.

    Raises:
      ValueError: if logits are not `[..., 1]` or labels are not -1 and +1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import binary_trades
      >>> f, adv = jnp.array([[2.0], [0.5]]), jnp.array([[2.0], [-0.5]])
      >>> binary_trades(f, adv, jnp.array([1, 1]), lam=4.0).tolist()
      [0.0, 1.5625]

    References:
      Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, 2019
      (arXiv:1901.08573), Eq. 3 with the hinge loss, and the MNIST experiment of Section 5.
    """
    boundary = binary_boundary(clean_logits, adv_logits, lam=lam)
    return hinge(clean_logits, labels).astype(boundary.dtype) + boundary


def binary_boundary(clean_logits: ArrayLike, adv_logits: ArrayLike, *, lam: ArrayLike) -> Array:
    r"""The boundary term of binary TRADES: at least 1 where the sign of the logit changes.

    .. math:: \max(0, 1 - f(x') f(x) / \lambda)

    The authors' attack maximises it as it stands. Where f(x)^2 >= lambda it is flat around x,
    and an attack that starts there finds no gradient: training ends early, with a maximum that
    is not small. The product -f(x')f(x) has the same maximisers and no flat part.

    Args:
      clean_logits: `[..., 1]`, of the natural images.
      adv_logits: `[..., 1]`, of the adversarial images.
      lam: the lambda of the paper. May be traced.

    Returns:
      `[...]`, one value per example. Gradients flow through both logits.

    Raises:
      ValueError: if logits are not `[..., 1]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import binary_boundary
      >>> float(binary_boundary(jnp.array([2.0]), jnp.array([-1.0]), lam=2.0))
      2.0

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Eq. 3.
    """
    for name, logits in (("clean_logits", clean_logits), ("adv_logits", adv_logits)):
        one_logit(logits, name)
    clean, adv = aligned(clean_logits=clean_logits, adv_logits=adv_logits)
    product = clean[..., 0] * adv[..., 0]
    as_number(lam, name="lam", low=0, positive=True, lead=product.shape)
    return jax.nn.relu(1 - product / jnp.asarray(lam, product.dtype))


def hinge(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""The hinge loss of a one-logit classifier.

    .. math:: \max(0, 1 - f(x) y)

    Args:
      logits: `[..., 1]`.
      labels: -1 or +1, `[...]`.

    Returns:
      `[...]`, one value per example.

    Raises:
      ValueError: if logits are not `[..., 1]` or labels are not -1 and +1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import hinge
      >>> float(hinge(jnp.array([0.25]), jnp.array(-1)))
      1.25

    References:
      Cortes and Vapnik, Support-Vector Networks, Machine Learning 20, 1995.
    """
    f = one_logit(logits, "logits")
    return jax.nn.relu(1 - f * _signs(labels, f))


def exponential(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""The exponential loss of a one-logit classifier, which TRADES' binary evaluation attacks.

    .. math:: \exp(-f(x) y)

    The authors' attack maximises `1 + exp(-f y)` and calls it logistic; gradients are the same.
    Where an example is misclassified by so much that the exponential would overflow, the value
    is capped and its gradient is 0. Beyond `f y` of about 100 (in float32) it underflows, and
    an attack finds no gradient.

    Args:
      logits: `[..., 1]`.
      labels: -1 or +1, `[...]`.

    Returns:
      `[...]`, one value per example, finite.

    Raises:
      ValueError: if logits are not `[..., 1]` or labels are not -1 and +1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import exponential
      >>> float(exponential(jnp.array([0.0]), jnp.array(1)))
      1.0

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Table 1; the evaluation of its MNIST experiment.
    """
    f = one_logit(logits, "logits")
    largest = float(np.log(jnp.finfo(f.dtype).max)) - 8
    return jnp.exp(jnp.minimum(-f * _signs(labels, f), largest))


def one_logit(logits: ArrayLike, name: str) -> Array:
    """Logits `[..., 1]` as scores `[...]` in float32 or better."""
    scores = as_logits(logits, name)
    if scores.shape[-1] != 1:
        raise InputError(f"{name} must be of one logit, [..., 1], got shape {scores.shape}")
    return scores[..., 0]


def _signs(labels: ArrayLike, like: Array) -> Array:
    """Labels -1 and +1 in the scores' dtype; the values of tracers cannot be looked at."""
    signs = as_array(labels, name="labels")
    if signs.shape != like.shape[like.ndim - signs.ndim :]:
        raise InputError(
            f"labels must be -1 or +1, one for each logit, {like.shape}, got shape {signs.shape}"
        )
    values = concrete(signs)
    if values is not None and not set(np.unique(values).tolist()) <= {-1, 1}:
        raise InputError(f"labels must be -1 or +1, got values {np.unique(values)[:5].tolist()}")
    return jnp.asarray(signs).astype(like.dtype)
