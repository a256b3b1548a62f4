"""Randomised smoothing by sampling, with bounds that hold at a stated confidence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from scipy.special import betainccinv, betaincinv

from jaxrobust.inputs import (
    InputError,
    as_array,
    as_count,
    as_images,
    as_network_logits,
    as_number,
    evaluation_mode,
)
from jaxrobust.keys import per_example_keys
from jaxrobust.typing import LogitsFn


class SmoothedBounds(NamedTuple):
    """What sampling says about a smoothed classifier; NumPy, one value per example.

    Attributes:
      labels: `[b]`, the class that was most frequent in the selection sample.
      lower: `[b]`, lower bound of its probability.
      upper: `[b]`, upper bound of the probability of every other class.
    """

    labels: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def smoothed_counts(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    *,
    sigma: ArrayLike,
    samples: int,
    batch_size: int = 100,
) -> Array:
    """How often a classifier answers with each class under Gaussian noise.

    Traceable, in a loop over batches of noise: wrap it in `jax.jit`. With keys folded per example
    the counts of an example do not depend on the others.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`. The noisy images are not clipped.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      sigma: standard deviation of the noise in image units, a number. May be traced.
      samples: draws per image, static.
      batch_size: draws that are evaluated together, `batch_size * b` images; static.

    Returns:
      `[b, k]` int32; every row sums to `samples`, but draws with NaN logits vote for no class.

    Raises:
      ValueError: if `samples` or `batch_size` is not positive, or images are not floating point.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust.mixing import smoothed_counts
      >>> def logits_fn(x): return x.sum((1, 2)) @ jnp.array([[1.0, 0.0]])
      >>> images = jnp.full((2, 4, 4, 1), 0.5)
      >>> smoothed_counts(logits_fn, jax.random.key(0), images, sigma=0.1, samples=50).tolist()
      [[50, 0], [50, 0]]

    References:
      Cohen et al., 2019 (arXiv:1902.02918), SampleUnderNoise.
    """
    as_count(samples, name="samples")
    as_count(batch_size, name="batch_size")
    as_number(sigma, name="sigma", low=0)
    images = jnp.asarray(as_images(images))
    examples = len(images)
    key = per_example_keys(key, examples)
    with evaluation_mode():
        shapes = jax.eval_shape(lambda x: as_network_logits(logits_fn(x), batch=len(x)), images)
    classes = shapes.shape[-1]
    noise_of = jax.vmap(lambda k, x: jax.random.normal(k, x.shape, x.dtype))

    def draw(number: Array) -> Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(key, number)
        return images + jnp.asarray(sigma, images.dtype) * noise_of(keys, images)

    def count(done: int, counts: Array) -> Array:
        numbers = done * batch_size + jnp.arange(batch_size)
        noisy = jax.vmap(draw)(numbers)
        flat = noisy.reshape(-1, *images.shape[1:])
        logits = as_network_logits(logits_fn(flat), batch=len(flat))
        votes = jax.nn.one_hot(jnp.argmax(logits, -1), classes, dtype=jnp.int32)
        votes = jnp.where(jnp.isnan(logits).any(-1, keepdims=True), 0, votes)
        votes = votes.reshape(batch_size, examples, classes)
        wanted = (numbers < samples)[:, None, None].astype(jnp.int32)
        return counts + (votes * wanted).sum(0, dtype=jnp.int32)

    batches = -(-samples // batch_size)
    return jax.lax.fori_loop(0, batches, count, jnp.zeros((examples, classes), jnp.int32))


def clopper_pearson(
    counts: np.ndarray, total: int, *, failure: float
) -> tuple[np.ndarray, np.ndarray]:
    """Exact one-sided confidence bounds of probabilities from counts.

    Each bound by itself fails with a probability of at most `failure`. Runs on the host.

    Args:
      counts: `[...]` integers in [0, total].
      total: number of draws.
      failure: probability, in (0, 1), with which a bound may be wrong.

    Returns:
      Lower and upper bounds, `[...]` float64.

    Raises:
      ValueError: if a count is outside of [0, total] or `failure` outside of (0, 1).

    Example:
      >>> import numpy as np
      >>> from jaxrobust.mixing import clopper_pearson
      >>> lower, upper = clopper_pearson(np.array([0, 99]), 100, failure=0.001)
      >>> lower.round(4).tolist(), upper.round(4).tolist()
      ([0.0, 0.9114], [0.0667, 1.0])

    References:
      Clopper and Pearson, Biometrika 26, 1934.
    """
    counts = np.asarray(as_array(counts, name="counts"))
    if np.any((counts < 0) | (counts > total)):
        raise InputError(f"counts must be in [0, {total}], got {counts!r}")
    failure = as_number(failure, name="failure", low=0, high=1, positive=True)
    if failure == 1:
        raise InputError(f"failure must be a probability in (0, 1), got {failure}")
    # Quantiles of beta distributions, whose parameters must be positive; else bounds are trivial.
    lower = betaincinv(np.maximum(counts, 1), total - counts + 1, failure)
    upper = betainccinv(counts + 1, np.maximum(total - counts, 1), failure)
    return np.where(counts > 0, lower, 0.0), np.where(counts < total, upper, 1.0)


def smoothed_bounds(
    selection: np.ndarray,
    counts: np.ndarray,
    *,
    confidence: float = 0.999,
    samples: int | None = None,
) -> SmoothedBounds:
    """Bounds of a smoothed classifier's probabilities that hold together.

    The class is chosen by one sample and bounded by another, so that the choice does not bias
    the bound. One lower and k - 1 upper Clopper-Pearson bounds share the probability of failure
    equally (Bonferroni); no other class can exceed 1 less the lower bound either.

    Args:
      selection: `[b, k]` counts of a small sample, of `smoothed_counts`.
      counts: `[b, k]` counts of a large one, drawn with another key.
      confidence: probability, per example, with which all bounds hold.
      samples: draws behind each row of `counts`, where some voted for no class (NaN logits);
        default: the sum of a row, which must be the same for all.

    Returns:
      `SmoothedBounds`; for `certified_radius_smoothing`.

    Raises:
      ValueError: if the shapes differ, rows have different sums, or `confidence` is not in (0, 1).

    Example:
      >>> import numpy as np
      >>> from jaxrobust.mixing import smoothed_bounds
      >>> bounds = smoothed_bounds(np.array([[90, 10]]), np.array([[930, 70]]))
      >>> bounds.labels.tolist(), bounds.lower.round(3).tolist(), bounds.upper.round(3).tolist()
      ([0], [0.9], [0.1])

    References:
      Cohen et al., 2019 (arXiv:1902.02918), Certify; theirs bounds the other classes by 1 less
      the lower bound alone.
    """
    selection = np.asarray(as_array(selection, name="selection"))
    counts = np.asarray(as_array(counts, name="counts"))
    if selection.shape != counts.shape or counts.ndim != 2 or counts.shape[1] < 2:
        raise InputError(
            "selection and counts must both be [b, k] with k >= 2, "
            f"got {selection.shape} and {counts.shape}"
        )
    if samples is not None:
        as_count(samples, name="samples")
    totals = np.unique(counts.sum(1)) if samples is None else np.array([samples])
    if len(totals) != 1 or totals[0] < max(1, counts.sum(1).max(initial=0)):
        raise InputError(
            f"every row of counts must have the same positive sum, got {totals}; give samples if "
            "draws had NaN logits"
        )
    as_number(confidence, name="confidence", low=0, high=1)
    classes = counts.shape[1]
    low, high = clopper_pearson(counts, int(totals[0]), failure=(1 - confidence) / classes)
    labels = selection.argmax(1)
    own = np.arange(classes)[None] == labels[:, None]
    lower = low[own]
    others = np.where(own, 0.0, high).max(1)
    return SmoothedBounds(labels, lower, np.minimum(others, 1 - lower))
