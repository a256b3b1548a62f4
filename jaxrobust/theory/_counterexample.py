"""Where the sandwich of R_Madry and R_SCORE fails: a search over pairs of two-class labels."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import distance


class Counterexample(NamedTuple):
    """Two points x, x' and a classifier; each field is the probability of class 0.

    At x the classifier agrees with the label, so only x' counts.

    Attributes:
      label: p_d(x).
      moved_label: p_d(x').
      output: p_theta(x').
      violation: by how much the inequality fails; at most rounding if it never does.
    """

    label: Array
    moved_label: Array
    output: Array
    violation: Array


def largest_violation(
    measure: str, *, side: Literal["madry", "score"], resolution: int = 49
) -> Counterexample:
    r"""The worst case of the sandwich on a grid of two-point problems.

    With "madry", :math:`R_{Madry} - (R_{SCORE} + C)` is made as large as possible, with
    "score" :math:`R_{SCORE} - (R_{Madry} + C)`. Every triple of probabilities
    `i / (resolution + 1)` is tried. Metrics give 0; "kl", "js" and "squared_error" do not.

    Args:
      measure: D, a name of `losses.distance`.
      side: which of the two risks is to exceed the other by more than C.
      resolution: probabilities tried for each of label, moved label and output.

    Returns:
      `Counterexample`.

    Raises:
      ValueError: if `measure` or `side` is unknown.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.largest_violation("kl", side="madry", resolution=9)
      >>> [round(float(v), 2) for v in found]
      [0.1, 0.6, 0.9, 0.9]

    References:
      Pang et al., 2022 (arXiv:2202.10103), Section 3: KL is not a metric.
    """
    if side not in ("madry", "score"):
        raise ValueError(f"side must be 'madry' or 'score', got {side!r}")
    divergence = distance(measure)
    axis = jnp.linspace(0, 1, resolution + 2)[1:-1]
    p, moved, q = (two_class_logits(v) for v in jnp.meshgrid(axis, axis, axis, indexing="ij"))
    madry, score, constant = divergence(p, q), divergence(moved, q), divergence(p, moved)
    larger, smaller = (madry, score) if side == "madry" else (score, madry)
    violation = (larger - smaller - constant).ravel()
    worst = jnp.argmax(violation)
    i, j, k = jnp.unravel_index(worst, (resolution,) * 3)
    return Counterexample(axis[i], axis[j], axis[k], violation[worst])


def two_class_logits(probability: ArrayLike) -> Array:
    """Logits `[..., 2]` of the distribution that gives class 0 a probability.

    Args:
      probability: of class 0, `[...]`, in (0, 1).

    Returns:
      `[..., 2]`, the log-probabilities.

    Example:
      >>> import jax
      >>> from jaxrobust import theory
      >>> [round(p, 6) for p in jax.nn.softmax(theory.two_class_logits(0.25)).tolist()]
      [0.25, 0.75]
    """
    probability = jnp.asarray(probability)
    return jnp.stack([jnp.log(probability), jnp.log1p(-probability)], -1)


def pinsker_slack(p_logits: ArrayLike, q_logits: ArrayLike) -> Array:
    r"""By how much Pinsker's inequality holds; never negative but for rounding.

    .. math:: \mathrm{KL}(p \,\|\, q) - \tfrac12 \|p - q\|_1^2 \ge 0

    Args:
      p_logits: `[..., k]`.
      q_logits: `[..., k]`.

    Returns:
      `[...]`.

    Example:
      >>> from jaxrobust import theory
      >>> p, q = theory.two_class_logits(0.5), theory.two_class_logits(0.9)
      >>> round(float(theory.pinsker_slack(p, q)), 4)
      0.1908

    References:
      Pinsker, Information and Information Stability of Random Variables and Processes, 1964.
      Pang et al., 2022 (arXiv:2202.10103), Section 4.
    """
    return distance("kl")(p_logits, q_logits) - distance("l1_squared")(p_logits, q_logits) / 2
