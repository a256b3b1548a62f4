"""MALT's order of target classes: by the linearised distance of their boundaries."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._fab_boundaries import DUAL, boundaries, norm_of
from jaxrobust.inputs import InputError, as_batch, as_choice, as_count, as_logits, at_label
from jaxrobust.precision import shown, widened
from jaxrobust.typing import NORMS, LogitsFn, Norm
from jaxrobust.verdicts import hard_labels


def malt_targets(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm = "linf",
    candidates: int = 100,
    targets: int = 9,
) -> Array:
    r"""Target classes by the linearised distance of their decision boundaries, the nearest first.

    .. math:: s_c = \frac{z_y - z_c}{\lVert \nabla_x (z_y - z_c) \rVert_*}

    for the most likely wrong classes c at the clean image, with the dual norm. A targeted attack
    that tries few classes should try these; AutoAttack takes the most likely ones. The cost is one
    forward pass and `candidates` backward passes (k - 1 if there are fewer classes).

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, k >= 2, parameters closed over.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: the norm of the perturbation: "linf", "l2" or "l1". Static.
      candidates: the most likely wrong classes that are compared, static.
      targets: how many are returned, static.

    Returns:
      `[b, min(targets, candidates, k - 1)]` int32, never the label. Equal scores keep the order of
      likelihood; a class without a gradient comes last.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> slopes = jnp.array([[0.0, 1.0, 9.0]])
      >>> def logits_fn(x): return jnp.array([[0.0, -1.0, -2.0]]) + x.mean(axis=(1, 2)) * slopes
      >>> attacks.malt_targets(logits_fn, jnp.zeros((1, 4, 4, 1)), jnp.array([0])).tolist()
      [[2, 1]]

    References:
      MALT, 2024 (arXiv:2407.02240). There a class without a gradient is tried first, and the
      label may fill the list.
    """
    images, labels = as_batch(images, labels)
    labels = hard_labels(labels)
    as_choice(norm, name="norm", choices=NORMS)
    as_count(candidates, name="candidates")
    as_count(targets, name="targets")
    if not len(images):
        return _none_ranked(logits_fn, images, min(candidates, targets))
    prepared = network(logits_fn, images)

    def evaluate(x: Array) -> Array:
        return as_logits(checked_logits(prepared(shown(x, images)), labels), "logits")

    wide = jax.lax.stop_gradient(widened(images))
    logits, boundary = boundaries(evaluate, labels, wide)
    clean, own = at_label(logits, labels)
    if clean.shape[-1] < 2:
        raise InputError(f"logits_fn must return at least two logits, got {clean.shape[-1]}")
    likely = jnp.argsort(-jnp.where(own, -jnp.inf, clean), -1, stable=True)
    likely = likely[:, : min(candidates, clean.shape[-1] - 1)].astype(jnp.int32)

    def score(classes: Array) -> Array:
        values, grads = boundary(classes)
        size = norm_of(grads, DUAL[norm])
        return jnp.where(size > 0, -values / jnp.where(size > 0, size, 1), jnp.inf)

    # One after the other: the gradients of a thousand classes fit in no memory.
    scores = jax.lax.map(score, likely.T).T
    nearest = jnp.argsort(scores, -1, stable=True)[:, :targets]
    return jax.lax.stop_gradient(jnp.take_along_axis(likely, nearest, -1))


def _none_ranked(logits_fn: LogitsFn, images: Array, most: int) -> Array:
    """`[0, t]`: one image tells the number of classes; networks need not take none at all."""
    one = jnp.zeros((1, *images.shape[1:]), images.dtype)
    classes = jax.eval_shape(network(logits_fn, one), one).shape[-1]
    return jnp.zeros((0, min(most, classes - 1)), jnp.int32)
