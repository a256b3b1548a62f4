"""Mixing two classifiers' probabilities, in log space."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import aligned, as_number


def mix(
    std_logits: ArrayLike,
    rob_logits: ArrayLike,
    *,
    alpha: ArrayLike,
    std_scale: ArrayLike = 1.0,
    rob_scale: ArrayLike = 1.0,
) -> Array:
    r"""Log-probabilities of the mixture of an accurate and a robust classifier.

    .. math:: \log((1 - \alpha)\,\mathrm{softmax}(s_a z_a) + \alpha\,\mathrm{softmax}(s_r z_r))

    Losses and attacks take the result as logits: its softmax is the mixture. Computed in log
    space, so that it and its gradients, also those by `alpha`, stay finite for `alpha` of 0 and 1
    and for probabilities that underflow.

    Args:
      std_logits: `[..., k]`, of the accurate base; half precision is computed in float32.
      rob_logits: `[..., k]`, of the robust base.
      alpha: weight of the ROBUST base in [0, 1], a number or `[...]`; leading axes broadcast. May
        be traced.
      std_scale: factor (inverse temperature) on the accurate base's logits. May be traced.
      rob_scale: factor on the robust base's logits. May be traced.

    Returns:
      `[..., k]` log-probabilities, float32 (float64 for float64 logits).

    Raises:
      ValueError: if logits are not floating point, or `alpha` is outside of [0, 1].
      AssertionError: if the numbers of classes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mix
      >>> std, rob = jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.5, 0.5]))
      >>> jnp.exp(mix(std, rob, alpha=0.75)).round(3).tolist()
      [0.6000000238418579, 0.4000000059604645]

    References:
      Bai et al., Improving the Accuracy-Robustness Trade-off of Classifiers via Adaptive
      Smoothing, 2023 (arXiv:2301.12554), Section 3.
    """
    std, rob = _log_probabilities(std_logits, rob_logits, std_scale, rob_scale)
    robust = checked_share("alpha", alpha, std.dtype)
    return log_mixture((std, rob), (1 - robust, robust))


def mix_ratio(std_logits: ArrayLike, rob_logits: ArrayLike, *, ratio: ArrayLike) -> Array:
    r"""Log-probabilities of the mixture in its earlier form, `ratio` robust parts to one accurate.

    .. math:: \log((\mathrm{softmax}(z_a) + R\,\mathrm{softmax}(z_r)) / (1 + R))

    The same as `mix` with `alpha = R / (1 + R)`.

    Args:
      std_logits: `[..., k]`, of the accurate base.
      rob_logits: `[..., k]`, of the robust base.
      ratio: `R` in [0, inf], a number or `[...]`; infinity is the robust base alone. May be traced.

    Returns:
      `[..., k]` log-probabilities, float32 (float64 for float64 logits).

    Raises:
      ValueError: if logits are not floating point, or `ratio` is negative.
      AssertionError: if the numbers of classes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mix_ratio
      >>> std, rob = jnp.log(jnp.array([0.9, 0.1])), jnp.log(jnp.array([0.5, 0.5]))
      >>> jnp.exp(mix_ratio(std, rob, ratio=3.0)).round(3).tolist()
      [0.6000000238418579, 0.4000000059604645]

    References:
      Bai et al., 2023 (arXiv:2301.12554); the form of the paper's first version.
    """
    std, rob = _log_probabilities(std_logits, rob_logits, 1.0, 1.0)
    parts = jnp.asarray(as_number(ratio, name="ratio", low=0, infinite=True), std.dtype)
    alone = jnp.isinf(parts)
    one, zero = jnp.ones_like(parts), jnp.zeros_like(parts)
    finite = jnp.where(alone, one, parts)
    weights = (
        jnp.where(alone, zero, 1 / (1 + finite)),
        jnp.where(alone, one, finite / (1 + finite)),
    )
    return log_mixture((std, rob), weights)


def log_mixture(log_probs: Sequence[Array], weights: Sequence[Array]) -> Array:
    """`log(sum_i w_i p_i)` of log-probabilities `[..., k]`, weights `[]` or `[...]`.

    Not a logaddexp with `log w_i`: by a weight of zero that has an infinite derivative, which
    times the zero share of the part is NaN.
    """
    leading = jnp.broadcast_shapes(*(p.shape[:-1] for p in log_probs), *(w.shape for w in weights))
    shape = (*leading, log_probs[0].shape[-1])
    log_probs = [jnp.broadcast_to(p, shape) for p in log_probs]
    weights = [jnp.broadcast_to(jnp.broadcast_to(w, leading)[..., None], shape) for w in weights]
    # A part of weight zero may be exp(1000) times the others: any finite number does for it. So
    # small that gradients by the weights, which are as large, do not overflow where they add up.
    limit = jnp.asarray(600 if log_probs[0].dtype.itemsize > 4 else 60, log_probs[0].dtype)
    shift = _largest(jax.lax.stop_gradient(log_probs), jax.lax.stop_gradient(weights), limit)
    nothing = jnp.isneginf(shift)
    shift = jnp.where(nothing, jnp.zeros_like(shift), shift)
    parts = [
        w * jnp.exp(jnp.minimum(p - shift, limit)) for p, w in zip(log_probs, weights, strict=True)
    ]
    total = sum(parts[1:], parts[0])
    total = jnp.where(nothing, jnp.ones_like(total), total)
    return jnp.where(nothing, jnp.full_like(total, -jnp.inf), shift + jnp.log(total))


def _largest(log_probs: Sequence[Array], weights: Sequence[Array], limit: Array) -> Array:
    """The largest part's logarithm; weights below exp(-limit) are none."""
    largest = jnp.full_like(log_probs[0], -jnp.inf)
    for p, w in zip(log_probs, weights, strict=True):
        part = jnp.where(w > jnp.exp(-limit), p + jnp.log(w), jnp.full_like(p, -jnp.inf))
        largest = jnp.maximum(largest, part)
    return largest


def _log_probabilities(
    std_logits: ArrayLike, rob_logits: ArrayLike, std_scale: ArrayLike, rob_scale: ArrayLike
) -> tuple[Array, Array]:
    std, rob = aligned(std_logits=std_logits, rob_logits=rob_logits, classes=2)
    as_number(std_scale, name="std_scale", low=0, lead=())
    as_number(rob_scale, name="rob_scale", low=0, lead=())
    return (
        jax.nn.log_softmax(jnp.asarray(std_scale, std.dtype) * std),
        jax.nn.log_softmax(jnp.asarray(rob_scale, rob.dtype) * rob),
    )


def checked_share(name: str, value: ArrayLike, dtype: jnp.dtype) -> Array:
    """`value` in `dtype` if it lies in [0, 1]; values of tracers cannot be looked at and pass."""
    return jnp.asarray(as_number(value, name=name, low=0, high=1), dtype)
