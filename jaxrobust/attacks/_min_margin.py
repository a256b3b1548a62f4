"""MinMargin: APGD that keeps the point of smallest margin, misclassified or not."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._apgd import _problem
from jaxrobust.attacks._apgd_run import run
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.inputs import as_batch, as_count, as_logits
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import loss_of_run, probability_margin
from jaxrobust.typing import LogitsFn, Norm
from jaxrobust.verdicts import hard_labels, has_nan


def min_margin(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
    steps: int = 100,
    targets: int = 9,
) -> Attacked:
    r"""The smallest margin that APGD on cross-entropy and on targets reaches.

    .. math:: \min_x p_y(x) - \max_{i \ne y} p_i(x)

    Other attacks keep misclassified images. This one keeps, over all iterations and runs, the image
    with the smallest margin between the probabilities, even if the prediction never changes. The
    robustness of a mixture with some alpha, or of MixedNUTS with some transformation, follows from
    the margins of its robust base, so attack only that base.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`; may have a method `judge`, see `apgd`.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "linf", "l2" or "l1".
      eps: radius in image units, `[]` or `[b]`; may be traced.
      steps: iterations of each run, static.
      targets: target classes (on the targeted DLR), static; the most likely wrong ones first.

    Returns:
      `Attacked`. `loss` is minus the margin, so it is positive for misclassified images;
      `images` attain it.

    Raises:
      ValueError: if an option is out of range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[4.0, -4.0]])
      >>> images = jnp.full((1, 4, 4, 1), 0.5)
      >>> found = attacks.min_margin(logits_fn, jax.random.key(0), images, jnp.array([0]),
      ...     norm="linf", eps=0.25, steps=10)
      >>> -round(float(found.loss[0]), 4) == round(float(jnp.tanh(1.0)), 4)
      True

    References:
      Bai et al., MixedNUTS, 2024 (arXiv:2402.02263), the MinMargin attack of its search.
    """
    images, labels = as_batch(images, labels)
    keys = per_example_keys(key, len(images))
    as_count(targets, name="targets", least=0)
    if not len(images):
        return nothing_attacked(images)
    clean = checked_logits(network(logits_fn, images)(images), labels)
    clean = as_logits(clean, "logits")
    labels = hard_labels(labels)
    runs = 1 + min(targets, clean.shape[-1] - 1)
    loss = loss_of_run(clean, labels)

    def again(number: Array, best: Attacked) -> Attacked:
        problem = _problem(
            logits_fn,
            images,
            labels,
            norm=norm,
            eps=eps,
            loss=loss(number),
            margin=_label_lead,
            steps=steps,
            eps_schedule=False,
            eot=1,
            unroll=1,
        )
        state: Any = run(problem, fold_keys(keys, number))[0]
        found = Attacked(state.adversarial, state.success, -state.margin)
        success = best.success | found.success
        return where(found.loss > best.loss, found, best)._replace(success=success)

    margin = _label_lead(clean, labels)
    nothing = Attacked(images, jnp.zeros(len(images), bool), jnp.full_like(margin, -jnp.inf))
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, runs, again, nothing))


def _label_lead(logits: Array, labels: Array) -> Array:
    """Probability of the label less the largest other one, `[b]`; the least, -1, of NaN logits."""
    return jnp.where(has_nan(logits), -1, -probability_margin(logits, labels))
