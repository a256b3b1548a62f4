"""The generalised Kullback-Leibler loss, and the class prior that weighs its squared error."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned, as_array, as_logits, as_number, at_label
from jaxrobust.losses._cross_entropy import cross_entropy


def gkl(
    natural: ArrayLike,
    adversarial: ArrayLike,
    labels: ArrayLike,
    class_prior: ArrayLike,
    *,
    alpha: ArrayLike,
    beta: ArrayLike,
    temperature: ArrayLike = 1.0,
    gamma: ArrayLike = 1.0,
    normaliser: ArrayLike | None = None,
) -> Array:
    r"""Generalised Kullback-Leibler loss: the KL divergence taken apart, and each part weighted.

    .. math:: \ell = \mathrm{CE}(n, y) - \alpha \sum_c p_c(n) \log p_c(a)
              + \frac{\beta}{4 M} \sum_{jl} w_j w_l ((n_j - n_l) - (a_j - a_l))^2

    :math:`w` is the label's row of the class prior to the power `gamma`, :math:`p(n)` in the second
    term is a constant, and gradients of the third flow into both logits. The double sum is
    computed in O(k): it is :math:`2 (S \sum w e^2 - (\sum w e)^2)` with :math:`e = n - a` and
    :math:`S = \sum w`. `gamma=1` is the improved KL loss (IKL, DKL) of the first version.

    Args:
      natural: `[b, k]`, logits `n` of the natural images.
      adversarial: `[b, k]`, logits `a` of the adversarial images.
      labels: integer class indices `[b]`.
      class_prior: `[k, k]`, a row of probabilities per class, see `class_prior`; a constant.
      alpha: weight of the soft cross-entropy. May be traced, as the next three.
      beta: weight of the squared error.
      temperature: of both distributions of the soft cross-entropy; 1 in adversarial training.
      gamma: power of the prior.
      normaliser: `[]`, `M`: the mean of :math:`S^2` over the examples of the whole batch. Default:
        over the given ones. It is 1 for `gamma=1`.

    Returns:
      `[b]`, float32 (float64 for float64 logits). The authors' scalar is its mean.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import gkl
      >>> z, prior = jnp.zeros((1, 4)), jnp.full((4, 4), 0.25)
      >>> gkl(z, z, jnp.array([2]), prior, alpha=4.0, beta=20.0).tolist()  # 5 log 4
      [6.931471824645996]

    References:
      Cui et al., Decoupled Kullback-Leibler Divergence Loss, 2024 (arXiv:2305.13948), Eq. 8;
      Generalized Kullback-Leibler Divergence Loss, 2025 (arXiv:2503.08038).
    """
    as_number(temperature, name="temperature", low=0, positive=True, lead=())
    clean, attacked = aligned(natural=natural, adversarial=adversarial, classes=2)
    hard = cross_entropy(clean, labels)
    for name, value in (("alpha", alpha), ("beta", beta)):
        as_number(value, name=name, low=0, lead=hard.shape)
    if normaliser is not None:
        as_number(normaliser, name="normaliser", low=0, positive=True, lead=())
    heat = jnp.asarray(temperature, clean.dtype)
    soft = -jnp.sum(
        jax.lax.stop_gradient(jax.nn.softmax(clean / heat)) * jax.nn.log_softmax(attacked / heat),
        -1,
    )
    weights = prior_weights(class_prior, labels, gamma=gamma).astype(clean.dtype)
    total = jnp.sum(weights, -1)
    gap = clean - attacked
    spread = total * jnp.sum(weights * gap**2, -1) - jnp.sum(weights * gap, -1) ** 2
    mean = jnp.mean(total**2) if normaliser is None else jnp.asarray(normaliser, clean.dtype)
    squared = spread / (2 * mean)
    return hard + jnp.asarray(alpha, clean.dtype) * soft + jnp.asarray(beta, clean.dtype) * squared


def prior_weights(class_prior: ArrayLike, labels: ArrayLike, *, gamma: ArrayLike = 1.0) -> Array:
    """The weights of the classes for each label, constants to differentiation.

    Args:
      class_prior: `[k, k]`, a row of probabilities per class.
      labels: integer class indices `[b]`.
      gamma: power of the prior. May be traced.

    Returns:
      `[b, k]`: the labels' rows to the power `gamma`.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import prior_weights
      >>> prior_weights(jnp.array([[0.5, 0.5], [0.0, 1.0]]), jnp.array([1])).tolist()
      [[0.0, 1.0]]
    """
    as_number(gamma, name="gamma", low=0, lead=())
    prior = as_square(class_prior, "class_prior")
    _, mask = at_label(
        jnp.zeros((len(as_array(labels, name="labels")), len(prior)), prior.dtype), labels
    )
    rows = jnp.einsum("bc,ck->bk", mask.astype(prior.dtype), prior, precision="highest")
    return jax.lax.stop_gradient(rows ** jnp.asarray(gamma, rows.dtype))


def class_prior_counts(
    natural: ArrayLike, labels: ArrayLike, *, temperature: ArrayLike = 1.0
) -> Array:
    """What a batch adds to the class prior: its predictions, summed by label.

    Args:
      natural: `[b, k]`, logits of the natural images.
      labels: integer class indices `[b]`.
      temperature: of the softmax; 4 or 1 in the published runs. May be traced.

    Returns:
      `[k, k]`, constants to differentiation: row `y` is the sum of the probabilities of the
      examples with label `y`.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import class_prior_counts
      >>> class_prior_counts(jnp.zeros((2, 2)), jnp.array([1, 1])).tolist()
      [[0.0, 0.0], [1.0, 1.0]]
    """
    as_number(temperature, name="temperature", low=0, positive=True, lead=())
    scores, mask = at_label(as_logits(natural, "natural", classes=2), labels)
    probs = jax.nn.softmax(scores / jnp.asarray(temperature, scores.dtype))
    counts = jnp.einsum("bc,bk->ck", mask.astype(probs.dtype), probs, precision="highest")
    return jax.lax.stop_gradient(counts)


def class_prior(counts: ArrayLike, previous: ArrayLike) -> Array:
    """The class prior of the next epoch: the counts, each row divided by its sum.

    A class without examples keeps its row. (The authors' code divides 0 by 0 there, and the loss
    is NaN from then on.)

    Args:
      counts: `[k, k]`, the sum of `class_prior_counts` over an epoch.
      previous: `[k, k]`, the prior so far; 1/k everywhere in the first epoch.

    Returns:
      `[k, k]`, whose rows sum to 1.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import class_prior
      >>> class_prior(jnp.array([[3.0, 1.0], [0.0, 0.0]]), jnp.full((2, 2), 0.5)).tolist()
      [[0.75, 0.25], [0.5, 0.5]]
    """
    sums, old = as_square(counts, "counts"), as_square(previous, "previous")
    if sums.shape != old.shape:
        raise InputError(
            f"counts and previous must have one shape [k, k], got {sums.shape} and {old.shape}"
        )
    total = jnp.sum(sums, -1, keepdims=True)
    return jnp.where(total > 0, sums / jnp.where(total > 0, total, 1), old)


def as_square(value: ArrayLike, name: str) -> Array:
    """A floating-point array `[k, k]` of at least two classes."""
    array = as_logits(value, name, classes=2)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise InputError(f"{name} must be [k, k], a row per class, got shape {array.shape}")
    return array
