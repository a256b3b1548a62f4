"""The losses of an ensemble of runs: cross-entropy, then one target class after the other."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_logits, at_label, pick
from jaxrobust.losses._cross_entropy import cross_entropy
from jaxrobust.losses._margins import dlr_targeted
from jaxrobust.typing import Loss


def loss_of_run(clean_logits: ArrayLike, labels: ArrayLike) -> Callable[[ArrayLike], Loss]:
    """Number of a run -> its loss: 0 untargeted, then by falling clean logit of the target.

    The number may be traced: all runs are one compiled program. With fewer than four classes,
    where the targeted DLR is undefined, it is the difference to the target's logit.

    Args:
      clean_logits: `[b, k]`, k >= 2, by which the targets are ordered.
      labels: integer class indices `[b]`.

    Returns:
      A function of the run's number that returns a loss, `(logits [b, k], labels [b]) -> [b]`.

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import loss_of_run
      >>> z, labels = jnp.array([[3.0, 1.0, 2.0]]), jnp.array([0])
      >>> run = loss_of_run(z, labels)
      >>> [round(float(run(number)(z, labels)[0]), 4) for number in range(3)]
      [0.4076, -1.0, -2.0]
    """
    clean_logits = as_logits(clean_logits, "clean_logits", classes=2)
    classes = clean_logits.shape[-1]
    clean, own = at_label(clean_logits, labels)
    order = jnp.argsort(-jnp.where(own, jnp.full_like(clean, -jnp.inf), clean), -1)

    def targeted(logits: Array, labels: Array, target: Array) -> Array:
        if classes >= 4:
            return dlr_targeted(logits, labels, target)
        logits, there = at_label(logits, target)
        return pick(logits, there) - pick(*at_label(logits, labels))

    def run(number: ArrayLike) -> Loss:
        rank = jnp.maximum(number - 1, 0) % (classes - 1)
        target = jnp.take(order, rank, axis=1)

        def loss(logits: Array, labels: Array) -> Array:
            untargeted = cross_entropy(logits, labels)
            return jnp.where(number == 0, untargeted, targeted(logits, labels, target))

        return loss

    return run
