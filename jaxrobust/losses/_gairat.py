"""GAIRAT's weights and the losses that use them."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import (
    InputError,
    aligned,
    as_array,
    as_choice,
    as_count,
    as_logits,
    as_number,
)
from jaxrobust.losses._cross_entropy import cross_entropy
from jaxrobust.losses._divergences import kl_divergence


def gairat_weights(
    kappa: ArrayLike,
    *,
    num_steps: int,
    lam: ArrayLike,
    kind: Literal["tanh", "sigmoid", "discrete"] = "tanh",
) -> Array:
    r"""Weights that fall with the number of attack steps that an example survives.

    .. math:: \omega \propto \frac{1 + \tanh(\lambda + 5 (1 - 2 \kappa / K))}{2}

    Computed as a logarithm of a sigmoid, so that strongly negative `lam` keeps its ratios. The
    weights are relative within the batch: a batch of only robust examples has weights 1.

    Args:
      kappa: `[b]`, correctly classified iterates among the first `num_steps` (`Attacked.kappa`).
      num_steps: `K`, steps of the attack. The authors round `K / 2` down, also for odd `K`.
      lam: shift; infinite for equal weights (plain adversarial training). May be traced.
      kind: "tanh", "sigmoid" (half the slope) or "discrete" (`(K + 1 - kappa) / (K + 1)`).

    Returns:
      `[b]` with mean 1, constants to differentiation.

    Raises:
      ValueError: for an unknown `kind`, or too few steps for it.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import gairat_weights
      >>> gairat_weights(jnp.array([3, 3]), num_steps=10, lam=-1.0).tolist()
      [1.0, 1.0]

    References:
      Zhang et al., Geometry-aware Instance-reweighted Adversarial Training, 2021 (ICLR,
      arXiv:2010.01736), Eq. 6.
    """
    log_weights = gairat_log_weights(kappa, num_steps=num_steps, lam=lam, kind=kind)
    count = jnp.asarray(log_weights.size, log_weights.dtype)
    total = jax.nn.logsumexp(log_weights) - jnp.log(count)
    return jax.lax.stop_gradient(jnp.exp(log_weights - total))


def gairat_log_weights(
    kappa: ArrayLike,
    *,
    num_steps: int,
    lam: ArrayLike,
    kind: Literal["tanh", "sigmoid", "discrete"] = "tanh",
) -> Array:
    """Logarithms of `gairat_weights` before they are normalised over the batch.

    Args:
      kappa: `[b]`, as in `gairat_weights`.
      num_steps: `K`, steps of the attack.
      lam: shift; infinite for equal weights. May be traced.
      kind: "tanh", "sigmoid" or "discrete".

    Returns:
      `[b]`.

    Raises:
      ValueError: for an unknown `kind`, or too few steps for it.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import gairat_log_weights
      >>> [round(float(w), 4) for w in gairat_log_weights(jnp.array([0, 5]), num_steps=10, lam=0.0)]
      [-0.0, -0.6931]
    """
    as_choice(kind, name="kind", choices=("tanh", "sigmoid", "discrete"))
    as_count(num_steps, name="num_steps")
    if num_steps < 2 and kind != "discrete":
        raise InputError(f"num_steps must be at least 2 for kind {kind!r}, got {num_steps}")
    kappa = as_kappa(kappa, num_steps).astype(jnp.result_type(float))
    as_number(lam, name="lam", infinite=True, lead=kappa.shape)
    if kind == "discrete":
        return jnp.log((num_steps + 1 - kappa) / (num_steps + 1))
    half = num_steps // 2
    slope = 2 if kind == "tanh" else 1
    shift = jnp.asarray(lam, kappa.dtype) + (half - kappa) * 5 / half
    return jax.nn.log_sigmoid(slope * shift)


def gairat(
    adv_logits: ArrayLike, labels: ArrayLike, kappa: ArrayLike, *, num_steps: int, lam: ArrayLike
) -> Array:
    """GAIRAT: cross-entropy on adversarial images, weighted by `gairat_weights`.

    Without extra data this defends against PGD on cross-entropy and little else: report a
    margin attack or AutoAttack beside it.

    Args:
      adv_logits: `[b, k]`.
      labels: integer class indices `[b]`.
      kappa: `[b]`, as in `gairat_weights`.
      num_steps: steps of the attack.
      lam: shift of the weights; infinite for plain adversarial training. May be traced.

    Returns:
      `[b]`; the authors' scalar is its mean.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import gairat
      >>> loss = gairat(jnp.zeros((2, 4)), jnp.array([0, 1]), jnp.array([3, 3]),
      ...     num_steps=10, lam=0.0)
      >>> [round(float(value), 4) for value in loss]
      [1.3863, 1.3863]

    References:
      Zhang et al., 2021 (arXiv:2010.01736), Algorithm 2.
    """
    losses = cross_entropy(as_logits(adv_logits, "adv_logits", classes=2), labels)
    as_count(num_steps, name="num_steps")
    as_kappa(kappa, num_steps, losses.shape)
    weights = gairat_weights(kappa, num_steps=num_steps, lam=lam)
    return weights.astype(losses.dtype) * losses


def gair_trades(
    clean_logits: ArrayLike,
    adv_kl_logits: ArrayLike,
    adv_cw_logits: ArrayLike,
    labels: ArrayLike,
    kappa: ArrayLike,
    *,
    beta: ArrayLike,
    num_steps: int,
    lam: ArrayLike,
) -> Array:
    r"""GAIR-TRADES: TRADES with two adversarial images, mixed by the geometry weight.

    .. math:: \mathrm{CE}(z, y) + \beta [\omega\, \mathrm{KL}(p \| p'_{KL})
              + (1 - \omega)\, \mathrm{KL}(p \| p'_{CW})], \quad
              \omega = \frac{1 + \tanh(\lambda + K/2 - \kappa)}{2}

    The weight is not normalised. With `lam` above 10 it is 1 and this is TRADES.

    Args:
      clean_logits: `[b, k]`.
      adv_kl_logits: `[b, k]`, of images that maximise the divergence.
      adv_cw_logits: `[b, k]`, of images that maximise the margin.
      labels: integer class indices `[b]`; -1 for unlabelled, which the cross-entropy leaves out.
      kappa: `[b]`, counted along the first attack.
      beta: the trade-off. May be traced.
      num_steps: `K`, steps of the attack.
      lam: shift. May be traced.

    Returns:
      `[b]`.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import gair_trades
      >>> z = jnp.zeros((1, 4))
      >>> loss = gair_trades(z, z, z, jnp.array([2]), jnp.array([5]), beta=6.0, num_steps=10,
      ...     lam=0.0)
      >>> round(float(loss[0]), 4)
      1.3863

    References:
      Zhang et al., 2021 (arXiv:2010.01736), GAIR-TRADES.
    """
    as_count(num_steps, name="num_steps")
    clean, adv_kl, adv_cw = aligned(
        clean_logits=clean_logits,
        adv_kl_logits=adv_kl_logits,
        adv_cw_logits=adv_cw_logits,
        classes=2,
    )
    natural = cross_entropy(clean, labels)
    as_number(beta, name="beta", low=0, lead=natural.shape)
    as_number(lam, name="lam", infinite=True, lead=natural.shape)
    count = as_kappa(kappa, num_steps, natural.shape).astype(natural.dtype)
    shift = jnp.asarray(lam, natural.dtype) + num_steps / 2 - count
    omega = jax.lax.stop_gradient(jax.nn.sigmoid(2 * shift))
    boundary = omega * kl_divergence(clean, adv_kl)
    boundary += (1 - omega) * kl_divergence(clean, adv_cw)
    return natural + jnp.asarray(beta, natural.dtype) * boundary


def as_kappa(kappa: ArrayLike, num_steps: int, shape: tuple[int, ...] | None = None) -> Array:
    """Counts `[b]` of iterates among the first `num_steps`.

    Raises:
      InputError: for another shape, or a count that is out of range.
    """
    counts = as_array(kappa, name="kappa")
    if counts.ndim != 1 if shape is None else counts.shape != shape:
        wanted = "[b]" if shape is None else str(shape)
        raise InputError(f"kappa must be one count per example, {wanted}, got {counts.shape}")
    as_number(counts, name="kappa", low=0, high=num_steps)
    return jnp.asarray(counts)
