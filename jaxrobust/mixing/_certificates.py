"""Radii inside which a mixed classifier provably keeps its class."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.scipy.stats.norm import cdf
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_logits, as_number, as_probabilities, at_label, pick
from jaxrobust.mixing._mix import checked_share

Formula = Literal["published", "ours"]


def inherited_margin(alpha: ArrayLike) -> Array:
    r"""The margin of the robust base from which on no accurate base can change the class.

    .. math:: (1 - \alpha) / \alpha

    Args:
      alpha: weight of the ROBUST base in [0, 1]; below 1/2 the margin would exceed 1, so nothing
        is certified.

    Returns:
      As `alpha`; infinite at 0.

    Raises:
      ValueError: if `alpha` is outside of [0, 1].

    Example:
      >>> from jaxrobust.mixing import inherited_margin
      >>> float(inherited_margin(0.8)).__round__(6)
      0.25

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 4.
    """
    dtype = jnp.result_type(alpha, float) if isinstance(alpha, Array) else jnp.result_type(float)
    share = checked_share("alpha", alpha, dtype)
    positive = share > 0
    safe = jnp.where(positive, share, jnp.ones_like(share))
    return jnp.where(positive, (1 - safe) / safe, jnp.full_like(share, jnp.inf))


def certified_radius_inherited(margin: ArrayLike, radius: ArrayLike, *, alpha: ArrayLike) -> Array:
    r"""The robust base's own radius, where its margin is too large for any accurate base.

    If the robust base's probability of its class leads every other one's by more than
    :math:`(1 - \alpha)/\alpha` in a ball, the mixture has that class in the ball too.

    Args:
      margin: `[...]`, by how much the robust base's probability of its class leads the others'
        everywhere in the ball of `radius`.
      radius: `[...]`, in any norm.
      alpha: weight of the ROBUST base in [0, 1], `[...]` or one number.

    Returns:
      `[...]`, `radius` or 0. At equality, where a tie is possible, 0.

    Raises:
      ValueError: if `alpha` is outside of [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import certified_radius_inherited
      >>> margins, radii = jnp.array([0.2, 0.3]), jnp.array([1.0, 1.0])
      >>> certified_radius_inherited(margins, radii, alpha=0.8).tolist()
      [0.0, 1.0]

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 4.
    """
    margin = as_logits(jnp.asarray(margin)[..., None], "margin")[..., 0]
    as_number(margin, name="margin", low=-1, high=1)
    radius = jnp.asarray(as_number(radius, name="radius", low=0), margin.dtype)
    needed = inherited_margin(alpha).astype(margin.dtype)
    return jnp.where(margin > needed, radius, jnp.zeros_like(radius))


def certified_radius_lipschitz(
    rob_probs: ArrayLike,
    *,
    alpha: ArrayLike,
    lipschitz: ArrayLike,
    labels: ArrayLike | None = None,
) -> Array:
    r"""Certified radius of a mixture whose robust base has Lipschitz probabilities.

    .. math:: \min_{i \ne y} \max(0, \alpha (h_y - h_i) + \alpha - 1) / (\alpha (L_y + L_i))

    Holds for any accurate base, in the norm in which the constants hold.

    Args:
      rob_probs: `[..., k]` probabilities of the robust base (after its scale).
      alpha: weight of the ROBUST base in [0, 1], `[...]` or one number.
      lipschitz: the constants of the probabilities, one number or `[..., k]`; see
        `smoothed_lipschitz`.
      labels: integer class indices `[...]`; the radius is 0 where the robust base's class is
        another. Default: whatever class it has.

    Returns:
      `[...]`, float32 (float64 for float64 probabilities).

    Raises:
      ValueError: if `alpha` is outside of [0, 1] or `rob_probs` are not floating point.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import certified_radius_lipschitz
      >>> probs = jnp.array([0.9, 0.1])
      >>> round(float(certified_radius_lipschitz(probs, alpha=0.8, lipschitz=1.0)), 3)
      0.275

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 4.
    """
    probs = as_logits(rob_probs, "rob_probs", classes=2)
    share = checked_share("alpha", alpha, probs.dtype)
    as_probabilities(probs, name="rob_probs")
    as_number(lipschitz, name="lipschitz", low=0)
    leading = jnp.broadcast_shapes(probs.shape[:-1], share.shape)
    probs = jnp.broadcast_to(probs, (*leading, probs.shape[-1]))
    own, mask = at_label(probs, jnp.argmax(probs, -1))
    constants = jnp.broadcast_to(jnp.asarray(lipschitz, probs.dtype), probs.shape)
    share = jnp.broadcast_to(share, leading)[..., None]
    lead = share * (pick(own, mask)[..., None] - probs) + share - 1
    slope = share * (pick(constants, mask)[..., None] + constants)
    possible = slope > 0
    radii = jax.nn.relu(lead) / jnp.where(possible, slope, jnp.ones_like(slope))
    radii = jnp.where(possible, radii, jnp.zeros_like(radii))
    radius = jnp.min(jnp.where(mask, jnp.full_like(radii, jnp.inf), radii), -1)
    return radius if labels is None else _where_right(radius, probs, labels)


def smoothed_lipschitz(sigma: ArrayLike, *, tight: bool = False) -> Array:
    r"""An l_2 Lipschitz constant of a function into [0, 1] smoothed by Gaussian noise.

    .. math:: \sqrt{2 / \pi} / \sigma \quad\text{or, as valid,}\quad 1 / (\sigma \sqrt{2 \pi})

    Args:
      sigma: standard deviation of the noise, in image units.
      tight: the second, by which radii double; the authors' code uses the first.

    Returns:
      As `sigma`.

    Example:
      >>> from jaxrobust.mixing import smoothed_lipschitz
      >>> float(smoothed_lipschitz(0.5, tight=True)).__round__(4)
      0.7979

    References:
      Salman et al., Provably Robust Deep Learning via Adversarially Trained Smoothed
      Classifiers, 2019 (arXiv:1906.04584), Lemma 1.
    """
    sigma = jnp.asarray(
        as_number(sigma, name="sigma", low=0, positive=True), jnp.result_type(float)
    )
    return jnp.asarray((0.5 if tight else 1.0) * (2 / jnp.pi) ** 0.5, sigma.dtype) / sigma


def certified_radius_smoothing(
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    alpha: ArrayLike,
    sigma: ArrayLike,
    formula: Formula = "published",
) -> Array:
    r"""Certified l_2 radius of a mixture whose robust base is smoothed by Gaussian noise.

    The formula "published" is

    .. math:: \frac{\sigma}{2}
        \max(0, \Phi^{-1}(\alpha p_y) - \Phi^{-1}(\alpha p_i + 1 - \alpha))

    and "ours", which is not the paper's and never smaller, is :math:`\sigma t` with the `t` of

    .. math:: \Phi(\Phi^{-1}(p_y) - t) - \Phi(\Phi^{-1}(p_i) + t) = (1 - \alpha) / \alpha

    since :math:`\Phi^{-1}` of a smoothed probability is :math:`1/\sigma`-Lipschitz: at distance
    :math:`\sigma t` the left side is the smallest margin possible. Both hold for any accurate base.

    Args:
      lower: `[...]`, lower bound of the smoothed probability of the robust base's class.
      upper: `[...]`, upper bound of every other class's; see `smoothed_bounds`.
      alpha: weight of the ROBUST base in [0, 1], `[...]` or one number.
      sigma: standard deviation of the noise in image units, `[...]` or one number.
      formula: "published" or "ours".

    Returns:
      `[...]`, float32 (float64 for float64 bounds); 0 where nothing is certified, also where
      `lower` does not exceed `upper`.

    Raises:
      ValueError: if `alpha` is outside of [0, 1], or `formula` is unknown.

    Example:
      >>> from jax import numpy as jnp
      >>> from jaxrobust.mixing import certified_radius_smoothing
      >>> bounds, settings = (jnp.float32(0.97), jnp.float32(0.0033)), {"alpha": 0.76, "sigma": 1.0}
      >>> round(float(certified_radius_smoothing(*bounds, **settings)), 2)
      0.67
      >>> round(float(certified_radius_smoothing(*bounds, **settings, formula="ours")), 2)
      1.85

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 4; Cohen et al., Certified Adversarial
      Robustness via Randomized Smoothing, 2019 (arXiv:1902.02918).
    """
    if formula not in get_args(Formula):
        raise InputError(f"formula must be one of {', '.join(get_args(Formula))}, not {formula!r}")
    for name, bound in (("lower", lower), ("upper", upper)):
        as_number(bound, name=name, low=0, high=1)
    as_number(sigma, name="sigma", low=0)
    low = as_logits(jnp.asarray(lower)[..., None], "lower")[..., 0]
    high = jnp.asarray(upper, low.dtype)
    share, noise = checked_share("alpha", alpha, low.dtype), jnp.asarray(sigma, low.dtype)
    shape = jnp.broadcast_shapes(low.shape, high.shape, share.shape, noise.shape)
    low, high, share, noise = (jnp.broadcast_to(x, shape) for x in (low, high, share, noise))
    if formula == "published":
        gap = ndtri(share * low) - ndtri(share * high + 1 - share)
        steps = jax.nn.relu(gap) / 2
    else:
        steps = _largest_step(low, high, share)
    certified = (low > high) & (share > 0) & jnp.logical_not(jnp.isnan(steps))
    return jnp.where(certified, noise * steps, jnp.zeros_like(steps))


def _largest_step(low: Array, high: Array, share: Array) -> Array:
    """The largest t with a margin above the inherited one, by bisection; never above it."""
    info = jnp.finfo(low.dtype)
    # Away from 0 and 1, where the quantile is infinite, to the safe side.
    below = ndtri(jnp.minimum(low, 1 - info.epsneg))
    above = ndtri(jnp.maximum(high, info.tiny))
    needed = inherited_margin(share)

    def passes(t: Array) -> Array:
        return cdf(below - t) - cdf(above + t) > needed

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        inside, outside = bracket
        middle = (inside + outside) / 2
        good = passes(middle)
        return jnp.where(good, middle, inside), jnp.where(good, outside, middle)

    start = jnp.zeros_like(low)
    # At t = (below - above) / 2 the margin is zero.
    stop = jnp.maximum(below - above, start) / 2
    inside, _ = jax.lax.fori_loop(0, info.nmant + 8, halve, (start, stop))
    return inside


def _where_right(radius: Array, probs: Array, labels: ArrayLike) -> Array:
    _, own = at_label(probs, labels)
    _, top = at_label(probs, jnp.argmax(probs, -1))
    right = jnp.broadcast_to(jnp.any(own & top, -1), radius.shape)
    return jnp.where(right, radius, jnp.zeros_like(radius))
