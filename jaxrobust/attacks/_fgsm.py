"""The fast gradient sign method: one step of PGD."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._pgd import pgd
from jaxrobust.inputs import InputError, as_batch
from jaxrobust.keys import per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.precision import widened
from jaxrobust.threats import Threat, Union, batched, default_step, described
from jaxrobust.typing import LogitsFn, Loss


def fgsm(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Threat,
    loss: Loss = cross_entropy,
    step_size: Any = None,
    start: Any = None,
) -> Attacked:
    """One ascent step from the clean image (FGSM; the normalised gradient step for l_2).

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      key: one PRNG key, or one per example `[b]`; unused unless a threat needs it.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      threat: the set to stay in.
      loss: `(logits [b, k], labels) -> [b]`, maximised.
      step_size: in the threat's units; default: the threat's radius `eps`, or the limits given by
        its `default_step` if it has no radius.
      start: the initial perturbation `[b, ...]`, added as it is; default 0. A random one makes
        this R+FGSM.

    Returns:
      `Attacked`.

    Raises:
      ValueError: if an argument is not of the stated kind, `step_size` is missing and the threat
        has neither `eps` nor `default_step`, or the threat is a union and no start is given.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks, threats
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> attacked = attacks.fgsm(logits_fn, jax.random.key(0), jnp.full((1, 2, 2, 1), 0.5),
      ...     jnp.array([0]), threat=threats.linf(0.25))
      >>> attacked.images.ravel().tolist()
      [0.25, 0.25, 0.25, 0.25]

    References:
      Goodfellow et al., Explaining and Harnessing Adversarial Examples, 2015 (arXiv:1412.6572).
    """
    images, labels = as_batch(images, labels)
    if step_size is None:
        step_size = whole_step(threat)
    if start is None:
        check_one(threat)
        keys = per_example_keys(jax.random.key(0), len(images))
        shapes = jax.eval_shape(batched(threat, len(images)).init, keys, widened(images))
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return pgd(
        logits_fn,
        key,
        images,
        labels,
        threat=threat,
        loss=loss,
        steps=1,
        step_size=step_size,
        start=start,
    )


def whole_step(threat: Any) -> Any:
    """The step from the clean image to the border of the set."""
    eps = getattr(threat, "eps", None)
    # The default of one step is 2.5 times the way there.
    return jax.tree.map(lambda size: size / 2.5, default_step(threat, 1)) if eps is None else eps


def check_one(threat: Any) -> None:
    """Raises for a union, because a step from the clean image would only use its first member.

    Raises:
      InputError: for a union.
    """
    if isinstance(threat, Union):
        raise InputError(
            f"threat of FGSM must be a single threat, got {described(threat)}; "
            "attack each of its `threats`, or use PGD, which draws one per start"
        )
