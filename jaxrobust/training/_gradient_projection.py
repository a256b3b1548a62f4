"""RAMP's gradient projection: what natural training adds to an epoch of adversarial training."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_number


def gradient_projection(old: Any, adversarial: Any, natural: Any, *, beta: ArrayLike = 0.5) -> Any:
    r"""Weights after an epoch of adversarial training, drawn towards natural training.

    .. math:: \theta = \theta_0 + \beta \max(\cos(d_a, d_n), 0)\, d_n + (1 - \beta)\, d_a

    for each array by itself, with the changes :math:`d_a` of an adversarial epoch and :math:`d_n`
    of a natural one, which both begin at :math:`\theta_0`; the cosine is of the flattened arrays.
    The published code includes BatchNorm's running statistics, so give them too.

    Args:
      old: a pytree of arrays at the epoch's start; `None` and integers are allowed.
      adversarial: the same after an epoch of adversarial training.
      natural: the same after an epoch of natural training, with an optimizer of its own.
      beta: share of the natural change, in [0, 1]. May be traced.

    Returns:
      The pytree; arrays that are not floating point (counters) are those of `adversarial`.

    Raises:
      ValueError: if the trees differ in their structure or shapes, or `beta` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.training import gradient_projection
      >>> zero, one = jnp.zeros(2), jnp.array([1.0, 0.0])
      >>> gradient_projection(zero, one, jnp.array([0.0, 1.0]), beta=0.5).tolist()
      [0.5, 0.0]

    References:
      Jiang and Singh, RAMP: Boosting Adversarial Robustness Against Multiple l_p Perturbations,
      2024 (arXiv:2402.06827), Algorithm 1.
    """
    as_number(beta, name="beta", low=0, high=1)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, adversarial, natural)]
    for name, other in zip(("adversarial", "natural"), shapes[1:], strict=True):
        if other != shapes[0]:
            raise InputError(f"{name} must have the structure and shapes of old, got {other}")

    def projected(start: Any, attacked: Any, clean: Any) -> Array:
        start, attacked, clean = (jnp.asarray(leaf) for leaf in (start, attacked, clean))
        if not jnp.issubdtype(start.dtype, jnp.inexact):
            return attacked
        adv, nat = attacked - start, clean - start
        lengths = jnp.sqrt(jnp.sum(adv * adv)) * jnp.sqrt(jnp.sum(nat * nat))
        cosine = jnp.sum(adv * nat) / jnp.where(lengths > 0, lengths, 1)
        share = jnp.asarray(beta, start.dtype)
        return start + share * jnp.maximum(cosine, 0) * nat + (1 - share) * adv

    return jax.tree.map(projected, old, adversarial, natural)
