"""What a mixing network is trained with, and what an attack that knows it maximises."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_array, as_logits, as_number
from jaxrobust.losses import cross_entropy


def detector_loss(gamma: ArrayLike, attacked: ArrayLike) -> Array:
    """Binary cross-entropy of the mixing logit as a detector of attacked images.

    Args:
      gamma: `[...]` mixing logits, before the range of alpha is applied; half precision is
        computed in float32.
      attacked: `[...]`, 1 for attacked images, 0 for clean ones; bool, integer or float.

    Returns:
      `[...]`, float32 (float64 for float64 logits).

    Raises:
      ValueError: if `gamma` is not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import detector_loss
      >>> detector_loss(jnp.array([0.0, 50.0]), jnp.array([1, 1])).round(4).tolist()
      [0.6930999755859375, 0.0]

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 5.
    """
    gamma = as_logits(jnp.asarray(gamma)[..., None], "gamma")[..., 0]
    flags = as_array(attacked, name="attacked")
    check_same_shape("attacked", flags.shape, "gamma", gamma.shape)
    as_number(
        flags.astype(np.int32) if flags.dtype == bool else flags, name="attacked", low=0, high=1
    )
    target = jnp.asarray(flags).astype(gamma.dtype)
    return target * jax.nn.softplus(-gamma) + (1 - target) * jax.nn.softplus(gamma)


def mixing_loss(
    log_probs: ArrayLike,
    gamma: ArrayLike,
    labels: ArrayLike,
    attacked: ArrayLike,
    *,
    bce: ArrayLike,
    ce: ArrayLike,
    product: ArrayLike,
    scale: ArrayLike = 1.0,
) -> Array:
    r"""The composite loss of Adaptive Smoothing's mixing network.

    .. math:: s (c_1 \mathrm{BCE} + c_2 \mathrm{CE} + c_3 \mathrm{BCE} \cdot \mathrm{CE})

    Args:
      log_probs: `[..., k]` of the mixture.
      gamma: `[...]` mixing logits, before the range of alpha is applied.
      labels: integer class indices `[...]`.
      attacked: `[...]`, 1 for attacked images, 0 for clean ones.
      bce: weight of the detector's cross-entropy. May be traced, as the others.
      ce: weight of the classification's cross-entropy.
      product: weight of their product.
      scale: weight of the example, `[...]` or one number.

    Returns:
      `[...]`, one value per example.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mixing_loss
      >>> loss = mixing_loss(jnp.zeros((1, 2)), jnp.zeros(1), jnp.array([0]), jnp.array([1]),
      ...     bce=1.5, ce=0.0, product=0.3)
      >>> round(float(loss[0]), 4)
      1.1839

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 5; weights: `ADAPTIVE_SMOOTHING[...].loss`.
    """
    detection = detector_loss(gamma, attacked)
    log_probs = as_logits(log_probs, "log_probs", classes=2)
    classification = cross_entropy(log_probs, labels).astype(detection.dtype)
    check_same_shape("gamma", detection.shape, "log_probs", classification.shape)
    for name, value in (("bce", bce), ("ce", ce), ("product", product), ("scale", scale)):
        as_number(value, name=name, low=0, lead=detection.shape)
    bce, ce, product, scale = (jnp.asarray(x, detection.dtype) for x in (bce, ce, product, scale))
    sums = bce * detection + ce * classification + product * detection * classification
    return scale * sums


def evading_loss(base_loss: ArrayLike, gamma: ArrayLike, *, weight: ArrayLike) -> Array:
    r"""What an attacker maximises who also makes an image look clean to the mixing network.

    .. math:: (1 - w) \ell + w\,\mathrm{BCE}(\gamma, 1)

    Args:
      base_loss: `[...]`, any attack's loss on the log-probabilities of the mixture.
      gamma: `[...]` mixing logits, before the range of alpha is applied.
      weight: w in [0, 1], a number or `[...]`: drawn from U(0, 0.4) per example in training;
        0.00145 in the authors' evaluation by PGD. May be traced.

    Returns:
      `[...]`, to be maximised.

    Raises:
      ValueError: if `gamma` is not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import evading_loss
      >>> evading_loss(jnp.array([2.0]), jnp.array([0.0]), weight=0.0).tolist()
      [2.0]

    References:
      Bai et al., 2023 (arXiv:2301.12554); the attacks of the authors' training and evaluation.
    """
    detection = detector_loss(gamma, jnp.ones((), bool))
    losses = as_array(base_loss, name="base_loss")
    check_same_shape("gamma", detection.shape, "base_loss", losses.shape)
    lead = np.broadcast_shapes(losses.shape, detection.shape)
    as_number(weight, name="weight", low=0, high=1, lead=lead)
    share = jnp.asarray(weight, detection.dtype)
    return (1 - share) * jnp.asarray(losses, detection.dtype) + share * detection


def check_same_shape(name: str, shape: tuple, other: str, wanted: tuple) -> None:
    """Refuses one value per example beside another number of examples; one for all passes."""
    if shape not in ((), wanted) and wanted != ():
        raise InputError(
            f"{name} must have one value per example as {other}, {wanted}, got {shape}"
        )
