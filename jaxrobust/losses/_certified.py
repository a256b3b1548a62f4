"""Losses of certified training: of bounds of margins, alone or with an attack's logits."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_array, as_logits, as_number, at_label, pick
from jaxrobust.losses._cross_entropy import cross_entropy


def certified(margins: ArrayLike) -> Array:
    r"""Cross-entropy of the worst case: of logits `-m`, whose label's entry is 0.

    .. math:: \log \sum_j e^{-m_j}

    An upper bound of the cross-entropy over the set that the margins were bounded on. The loss of
    IBP and CROWN-IBP training, by the method of the margins.

    Args:
      margins: `[..., k]`, lower bounds of the label's logit minus each other, as `bounds.margins`
        returns them.

    Returns:
      `[...]`, float32 (float64 for float64 margins).

    Raises:
      ValueError: if `margins` are not floating-point `[..., k]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import certified
      >>> certified(jnp.zeros((1, 4))).tolist()
      [1.3862943649291992]

    References:
      Gowal et al., On the Effectiveness of Interval Bound Propagation for Training Verifiably
      Robust Models, 2018 (arXiv:1810.12715).
    """
    return jax.nn.logsumexp(-as_logits(margins, "margins", classes=2), -1)


def mtl_ibp(
    margins: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike
) -> Array:
    r"""MTL-IBP: the certified loss and the adversarial cross-entropy, weighed.

    .. math:: \alpha\, \ell(m) + (1 - \alpha)\, \mathrm{CE}(z(x'), y)

    Args:
      margins: `[..., k]`, as in `certified`.
      adv_logits: `[..., k]`, of the adversarial images.
      labels: integer class indices `[...]`.
      alpha: weight of the certified loss, in [0, 1]. May be traced.

    Returns:
      `[...]`, one value per example.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import mtl_ibp
      >>> mtl_ibp(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.array([2]), alpha=0.25).tolist()
      [1.3862943649291992]

    References:
      De Palma et al., Expressive Losses for Verified Robustness via Convex Combinations, 2024
      (arXiv:2305.13991).
    """
    bound, attacked, share = _parts(margins, adv_logits, labels, alpha)
    return share * bound + (1 - share) * attacked


def exp_ibp(
    margins: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike
) -> Array:
    r"""EXP-IBP: a geometric mean of the certified loss and the adversarial cross-entropy.

    .. math:: \ell(m)^{\alpha}\, \mathrm{CE}(z(x'), y)^{1 - \alpha}

    Per example, as in the paper. (The published code takes powers of the means over a batch.)

    Args:
      margins: `[..., k]`, as in `certified`.
      adv_logits: `[..., k]`, of the adversarial images.
      labels: integer class indices `[...]`.
      alpha: weight of the certified loss, in [0, 1]. May be traced.

    Returns:
      `[...]`, one value per example. Where a loss is 0 its derivative is 0, not infinite.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import exp_ibp
      >>> exp_ibp(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.array([2]), alpha=0.0).tolist()
      [1.3862943649291992]

    References:
      De Palma et al., 2024 (arXiv:2305.13991).
    """
    bound, attacked, share = _parts(margins, adv_logits, labels, alpha)
    return _power(bound, share) * _power(attacked, 1 - share)


def cc_ibp(
    margins: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike
) -> Array:
    r"""CC-IBP: the certified loss of a convex combination of bounds and attained margins.

    .. math:: \ell(\alpha\, m + (1 - \alpha)\, m'), \qquad m'_j = z_y(x') - z_j(x')

    Args:
      margins: `[..., k]`, as in `certified`.
      adv_logits: `[..., k]`, of the adversarial images.
      labels: integer class indices `[...]`.
      alpha: weight of the bounds, in [0, 1]. May be traced.

    Returns:
      `[...]`, one value per example.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import cc_ibp
      >>> cc_ibp(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.array([2]), alpha=0.25).tolist()
      [1.3862943649291992]

    References:
      De Palma et al., 2024 (arXiv:2305.13991).
    """
    bound, logits = _pair(margins, adv_logits)
    share = jnp.broadcast_to(_share(alpha, bound), bound.shape[:-1])[..., None]
    scores, mask = at_label(logits, labels)
    attained = jnp.expand_dims(pick(scores, mask), -1) - scores
    return certified(share * bound + (1 - share) * attained)


def _pair(margins: ArrayLike, adv_logits: ArrayLike) -> tuple[Array, Array]:
    """Margins and logits of one shape and dtype."""
    bound = as_logits(margins, "margins", classes=2)
    logits = as_logits(adv_logits, "adv_logits", classes=2)
    if bound.shape != logits.shape:
        raise InputError(
            f"margins must have the shape of adv_logits, {logits.shape}, got {bound.shape}"
        )
    dtype = jnp.promote_types(bound.dtype, logits.dtype)
    return bound.astype(dtype), logits.astype(dtype)


def _share(alpha: ArrayLike, like: Array) -> Array:
    """Alpha, one number or one for each example of `[..., k]`."""
    as_number(alpha, name="alpha", low=0, high=1, lead=like.shape[:-1])
    return jnp.asarray(alpha, like.dtype)


def _parts(
    margins: ArrayLike, adv_logits: ArrayLike, labels: ArrayLike, alpha: ArrayLike
) -> tuple[Array, Array, Array]:
    """The certified loss, the adversarial one, and the weight of the first."""
    bound, logits = _pair(margins, adv_logits)
    if jnp.issubdtype(as_array(labels, name="labels").dtype, jnp.floating):
        raise InputError(
            "labels must be integer class indices, because margins are those of one class, got "
            f"{as_array(labels).dtype}"
        )
    return certified(bound), cross_entropy(logits, labels), _share(alpha, bound)


def _power(loss: Array, exponent: Array) -> Array:
    """`loss ** exponent` without the infinite derivative at 0."""
    positive = loss > 0
    power = jnp.where(positive, loss, 1) ** exponent
    return jnp.where(positive | (exponent == 0), power, 0 * power)
