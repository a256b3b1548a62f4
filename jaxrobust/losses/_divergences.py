"""Divergences and distances between two softmax distributions.

Everything is computed from log-probabilities. Taking `log(softmax(z))` instead underflows to
`-inf` and turns gradients into NaN while the loss still looks healthy.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import (
    InputError,
    aligned,
    as_count,
    as_number,
    as_targets,
)

LogDistance = Callable[[Array, Array], Array]


def kl_divergence(logits_p: ArrayLike, logits_q: ArrayLike) -> Array:
    r"""Kullback-Leibler divergence KL(p || q) between two softmax distributions.

    .. math:: \sum_c p_c (\log p_c - \log q_c)

    Args:
      logits_p: `[..., k]`, the first argument of the divergence (in TRADES the clean output).
      logits_q: `[..., k]`, the second. Leading axes broadcast; half precision is computed in
        float32.

    Returns:
      `[...]`, one value per example, in nats. Gradients reach both arguments and stay finite
      when a probability underflows.

    Raises:
      ValueError: if an argument is not floating-point `[..., k]`, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import kl_divergence
      >>> float(kl_divergence(jnp.array([0.0, 0.0]), jnp.array([0.0, 0.0])))
      0.0
    """
    p, q = aligned(logits_p=logits_p, logits_q=logits_q, classes=2)
    return _kl(jax.nn.log_softmax(p), jax.nn.log_softmax(q))


def squared_error(logits_p: ArrayLike, logits_q: ArrayLike) -> Array:
    r"""Squared error between two softmax distributions, SCORE's measure.

    .. math:: \sum_c (p_c - q_c)^2

    Args:
      logits_p: `[..., k]`.
      logits_q: `[..., k]`. Leading axes broadcast; half precision is computed in float32.

    Returns:
      `[...]`, one value per example in [0, 2].

    Raises:
      ValueError: if an argument is not floating-point `[..., k]`, or shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import squared_error
      >>> float(squared_error(jnp.array([9e3, 0.0]), jnp.array([0.0, 9e3])))
      2.0

    References:
      Pang et al., Robustness and Accuracy Could Be Reconcilable by (Proper) Definition,
      2022 (arXiv:2202.10103), the LSE objective.
    """
    p, q = aligned(logits_p=logits_p, logits_q=logits_q, classes=2)
    return _squared_error(jax.nn.log_softmax(p), jax.nn.log_softmax(q))


def distance(name: str) -> Callable[[ArrayLike, ArrayLike], Array]:
    """The named distance between two softmax distributions, as a function of their logits.

    `kl` is KL(p || q) and `rkl` is KL(q || p); `js` is the Jensen-Shannon divergence in nats;
    `sqrt_kl`, `sqrt_rkl`, `sqrt_js` their roots; `squared_error`, `l1`, `l1_squared`, `l2`,
    `linf` act on probabilities. `sqrt_js`, `l1`, `l2` and `linf` are metrics.

    Args:
      name: one of the names above.

    Returns:
      A function `(p_logits [..., k], q_logits [..., k]) -> [...]`. Where two distributions
      coincide the roots have gradient 0 instead of an infinite one.

    Raises:
      ValueError: for an unknown name; the message lists the valid ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import distance
      >>> float(distance("l1")(jnp.array([9e3, 0.0]), jnp.array([0.0, 9e3])))
      2.0

    References:
      Pang et al., 2022 (arXiv:2202.10103), Section 3 and the distances of its tables.
    """
    if name not in LOG_DISTANCES:
        raise InputError(f"distance name {name!r} is unknown; choose from {sorted(LOG_DISTANCES)}")
    return partial(_of_logits, name)


def label_distance(name: str) -> Callable[..., Array]:
    """The named distance between labels and a softmax distribution, as a function of its logits.

    `distance(name)` with the labels in the place of `p`: `kl` is KL(t || p(z)). Labels may have
    zeros; `rkl` and `sqrt_rkl` are infinite there.

    Args:
      name: as in `distance`.

    Returns:
      A function `(logits [..., k], labels, *, label_smoothing=0.0) -> [...]`; `labels` are integer
      class indices `[...]` or probabilities `[..., k]` (taken as they are). A smoothed label has
      `1 - s` on the class and `s / (k - 1)` elsewhere, as in `score`.

    Raises:
      ValueError: for an unknown name; the message lists the valid ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import label_distance
      >>> label_distance("l1")(jnp.array([[9e3, 0.0]]), jnp.array([1])).tolist()
      [2.0]

    References:
      Pang et al., 2022 (arXiv:2202.10103), Section 3 and the distances of its tables.
    """
    if name not in LOG_DISTANCES:
        raise InputError(f"distance name {name!r} is unknown; choose from {sorted(LOG_DISTANCES)}")
    return partial(_to_labels, name)


def _to_labels(
    name: str, logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0
) -> Array:
    scores, targets = as_targets(logits, labels, label_smoothing)
    return LOG_DISTANCES[name](jnp.log(targets), jax.nn.log_softmax(scores))


def clip_bound(name: str, clip_loss: float, num_classes: int) -> Array:
    """The error that `clip_loss` makes acceptable: the distance of a slightly wrong prediction.

    The distance between a one-hot label and the prediction that has `1 - clip_loss` on it and the
    rest spread evenly. 0 for `clip_loss` 0 (the authors' code gives NaN for some distances then).

    Args:
      name: as in `distance`.
      clip_loss: probability in [0, 1) that a prediction may miss.
      num_classes: number of classes `k`.

    Returns:
      `[]`.

    Raises:
      ValueError: for an unknown name, or `clip_loss` outside [0, 1).

    Example:
      >>> from jaxrobust.losses import clip_bound
      >>> round(float(clip_bound("squared_error", 0.3, 10)), 6)
      0.1

    References:
      Pang et al., 2022 (arXiv:2202.10103), the clipped losses without extra data.
    """
    as_number(clip_loss, name="clip_loss", low=0, high=1, lead=())
    as_count(num_classes, name="num_classes", least=2)
    if clip_loss == 1:
        raise InputError(f"clip_loss must be in [0, 1), got {clip_loss}")
    first = jnp.arange(num_classes) == 0
    prediction = jnp.where(first, 1 - clip_loss, clip_loss / (num_classes - 1))
    logits = jnp.log(prediction.astype(jnp.result_type(float)))
    return label_distance(name)(logits, jnp.zeros((), jnp.int32))


def _of_logits(name: str, p_logits: ArrayLike, q_logits: ArrayLike) -> Array:
    p, q = aligned(p_logits=p_logits, q_logits=q_logits, classes=2)
    return LOG_DISTANCES[name](jax.nn.log_softmax(p), jax.nn.log_softmax(q))


def _kl(log_p: Array, log_q: Array) -> Array:
    p = jnp.exp(log_p)
    absent = p == 0  # 0 log 0 = 0, also where log_p is -inf; a comparison that NaN does not pass
    return jnp.sum(jnp.where(absent, 0, p * (jnp.where(absent, 0, log_p) - log_q)), -1)


def _reverse(measure: LogDistance) -> LogDistance:
    return lambda log_p, log_q: measure(log_q, log_p)


def _js(log_p: Array, log_q: Array) -> Array:
    log_m = jnp.logaddexp(log_p, log_q) - jnp.log(jnp.asarray(2, log_p.dtype))
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def _root(measure: LogDistance) -> LogDistance:
    """Square root with gradient 0 at 0, where the true one is infinite."""

    def rooted(log_p: Array, log_q: Array) -> Array:
        value = measure(log_p, log_q)
        positive = value > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1)), 0)

    return rooted


def _on_probabilities(reduce: Callable[[Array], Array]) -> LogDistance:
    return lambda log_p, log_q: reduce(jnp.exp(log_p) - jnp.exp(log_q))


_squared_error = _on_probabilities(lambda d: jnp.sum(d * d, -1))
_l1 = _on_probabilities(lambda d: jnp.sum(jnp.abs(d), -1))

LOG_DISTANCES: dict[str, LogDistance] = {
    "kl": _kl,
    "rkl": _reverse(_kl),
    "js": _js,
    "sqrt_kl": _root(_kl),
    "sqrt_rkl": _root(_reverse(_kl)),
    "sqrt_js": _root(_js),
    "squared_error": _squared_error,
    "l1": _l1,
    "l1_squared": lambda log_p, log_q: _l1(log_p, log_q) ** 2,
    "l2": _root(_squared_error),
    "linf": _on_probabilities(lambda d: jnp.max(jnp.abs(d), -1)),
}
