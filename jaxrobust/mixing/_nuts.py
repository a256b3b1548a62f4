"""MixedNUTS: the robust base's logits transformed before they are mixed."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned, as_count, as_logits, as_number
from jaxrobust.mixing._mix import checked_share, log_mixture

Clamp = Literal["gelu", "relu", "elu", "softplus", "linear"]

# Larger logits are cut: their variance would overflow.
_LARGEST = 1e15


def normalize_logits(logits: ArrayLike, *, top_k: int = 250) -> Array:
    r"""Logits less their mean, divided by their standard deviation.

    .. math:: z = (l - \mu_k) / \sqrt{v_k + 10^{-8}}

    Args:
      logits: `[..., k]`, cut at +-1e15; half precision is computed in float32.
      top_k: number of largest logits that mean and (unbiased) variance use; all if there are
        fewer.

    Returns:
      `[..., k]`, float32 (float64 for float64 logits).

    Raises:
      ValueError: if `logits` are not floating point or `top_k` is less than 2.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import normalize_logits
      >>> normalize_logits(jnp.array([1.0, 2.0, 3.0])).tolist()
      [-1.0, 0.0, 1.0]

    References:
      Bai et al., MixedNUTS, 2024 (arXiv:2402.02263).
    """
    as_count(top_k, name="top_k", least=2)
    logits = jnp.clip(as_logits(logits, "logits", classes=2), -_LARGEST, _LARGEST)
    top = logits
    if top_k < logits.shape[-1]:
        top = jax.lax.top_k(logits, top_k)[0]
    mean = jnp.mean(top, -1, keepdims=True)
    variance = jnp.sum(jnp.square(top - mean), -1, keepdims=True) / (top.shape[-1] - 1)
    return (logits - mean) / jnp.sqrt(variance + 1e-8)


def mixednuts_map(
    logits: ArrayLike,
    *,
    s: ArrayLike,
    p: ArrayLike,
    c: ArrayLike,
    top_k: int = 250,
    clamp: Clamp = "gelu",
) -> Array:
    r"""MixedNUTS' transformation of the robust base's logits.

    .. math:: M(l) = s \, \mathrm{sign}(q) |q|^p, \quad q = \mathrm{clamp}(z + c)

    with the normalised logits `z` of `normalize_logits`. It keeps the order of the logits above
    the clamp and spreads out the large margins, which right predictions have more often.

    Args:
      logits: `[..., k]`; half precision is computed in float32. The authors compute in float64;
        float32 agrees to about 1e-6.
      s: scale. May be traced, like `p` and `c`.
      p: power.
      c: bias before the clamp; not used by "linear".
      top_k: see `normalize_logits`.
      clamp: "gelu" (exact, as published), "relu", "elu", "softplus", or "linear" for none.

    Returns:
      `[..., k]` logits, float32 (float64 for float64 logits).

    Raises:
      ValueError: if `logits` are not floating point or an option is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mixednuts_map
      >>> logits = jnp.array([3.0, 1.0, 0.0, 0.0])
      >>> mixednuts_map(logits, s=2.0, p=2.0, c=0.0, clamp="relu").round(3).tolist()
      [4.0, 0.0, 0.0, 0.0]

    References:
      Bai et al., 2024 (arXiv:2402.02263), Section 4.
    """
    if clamp not in get_args(Clamp):
        raise InputError(f"clamp must be one of {', '.join(get_args(Clamp))}, not {clamp!r}")
    for name, value in (("s", s), ("p", p), ("c", c)):
        as_number(value, name=name, lead=())
    q = normalize_logits(logits, top_k=top_k)
    if clamp != "linear":
        shifted = q + jnp.asarray(c, q.dtype)
        q = {
            "gelu": lambda x: jax.nn.gelu(x, approximate=False),
            "relu": jax.nn.relu,
            "elu": jax.nn.elu,
            "softplus": jax.nn.softplus,
        }[clamp](shifted)
    # The power of 0 has no finite derivative by a small or by a traced exponent.
    zero = q == 0
    power = jnp.where(zero, jnp.ones_like(q), jnp.abs(q)) ** jnp.asarray(p, q.dtype)
    return jnp.asarray(s, q.dtype) * jnp.sign(q) * jnp.where(zero, jnp.zeros_like(q), power)


def mixednuts_mix(
    std_logits: ArrayLike,
    rob_logits: ArrayLike,
    *,
    s: ArrayLike,
    p: ArrayLike,
    c: ArrayLike,
    alpha: ArrayLike,
    top_k: int = 250,
    clamp: Clamp = "gelu",
) -> Array:
    r"""MixedNUTS' log-probabilities: the accurate base's class, mixed with the transformed robust.

    .. math:: \log((1 - \alpha)\,\mathrm{onehot}(\arg\max z_a) + \alpha\,\mathrm{softmax}(M(z_r)))

    Args:
      std_logits: `[..., k]`, of the accurate base. No gradient flows to it.
      rob_logits: `[..., k]`, of the robust base.
      s: see `mixednuts_map`, like `p`, `c`, `top_k` and `clamp`.
      p: power.
      c: bias.
      alpha: weight of the ROBUST base in [0, 1]; leading axes broadcast.
      top_k: logits that the normalisation sees.
      clamp: the nonlinearity.

    Returns:
      `[..., k]` log-probabilities, float32 (float64 for float64 logits).

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mixednuts_mix
      >>> std, rob = jnp.array([0.0, 1.0]), jnp.array([2.0, 2.0])
      >>> jnp.exp(mixednuts_mix(std, rob, s=1.0, p=1.0, c=0.0, alpha=0.5)).tolist()
      [0.25, 0.75]

    References:
      Bai et al., 2024 (arXiv:2402.02263).
    """
    std, rob = aligned(std_logits=std_logits, rob_logits=rob_logits, classes=2)
    own = jax.nn.one_hot(jnp.argmax(std, -1), std.shape[-1], dtype=std.dtype)
    # The argmax of NaN is a class; the mixture of one must not be right by it.
    own = jnp.where(jnp.isnan(std).any(-1, keepdims=True), jnp.nan, own)
    mapped = jax.nn.log_softmax(mixednuts_map(rob, s=s, p=p, c=c, top_k=top_k, clamp=clamp))
    robust = checked_share("alpha", alpha, std.dtype)
    return log_mixture((jnp.log(own), mapped), (1 - robust, robust))


def mixednuts_surrogate(
    std_logits: ArrayLike,
    rob_logits: ArrayLike,
    *,
    s: ArrayLike,
    p: ArrayLike,
    c: ArrayLike,
    alpha: ArrayLike,
    raw_share: ArrayLike = 0.9,
    top_k: int = 250,
    clamp: Clamp = "gelu",
) -> Array:
    r"""What an attack on MixedNUTS differentiates: it has gradients where MixedNUTS has none.

    .. math:: \log((1 - \alpha) p_a + \alpha (\rho\,p_r + (1 - \rho)\,\mathrm{softmax}(M(z_r))))

    with the probabilities `p` of the raw logits. The published evaluations take `alpha` from the
    mixing without a transformation and rho = 0.9; rho = 0 with MixedNUTS' own `alpha` keeps the
    transformation in full.

    Args:
      std_logits: `[..., k]`, of the accurate base.
      rob_logits: `[..., k]`, of the robust base.
      s: see `mixednuts_map`, like `p`, `c`, `top_k` and `clamp`.
      p: power.
      c: bias.
      alpha: weight of the ROBUST base in [0, 1]; leading axes broadcast.
      raw_share: rho in [0, 1], the share of the robust base that is not transformed.
      top_k: logits that the normalisation sees.
      clamp: the nonlinearity.

    Returns:
      `[..., k]` log-probabilities, float32 (float64 for float64 logits).

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.mixing import mixednuts_surrogate
      >>> std, rob = jnp.array([0.0, 0.0]), jnp.array([2.0, 2.0])
      >>> jnp.exp(mixednuts_surrogate(std, rob, s=1.0, p=1.0, c=0.0, alpha=0.5)).round(6).tolist()
      [0.5, 0.5]

    References:
      Bai et al., 2024 (arXiv:2402.02263); the transfer setting of the authors' evaluation.
    """
    std, rob = aligned(std_logits=std_logits, rob_logits=rob_logits, classes=2)
    mapped = mixednuts_map(rob, s=s, p=p, c=c, top_k=top_k, clamp=clamp)
    robust = checked_share("alpha", alpha, std.dtype)
    raw = checked_share("raw_share", raw_share, std.dtype)
    logits = (std, rob, mapped)
    weights = (1 - robust, robust * raw, robust * (1 - raw))
    return log_mixture([jax.nn.log_softmax(z) for z in logits], weights)
