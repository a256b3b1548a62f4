"""The losses of an ensemble of runs: cross-entropy, then one target class after the other."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._attacked import Loss
from jaxrobust.inputs import at_label, pick
from jaxrobust.losses import cross_entropy, dlr_targeted


def loss_of_run(clean_logits: Array, labels: Array) -> Callable[[Array], Loss]:
    """Number of a run -> its loss: 0 untargeted, then by falling clean logit of the target.

    The number may be traced: all runs are one compiled program. With fewer than four classes,
    where the targeted DLR is undefined, it is the difference to the target's logit.
    """
    classes = clean_logits.shape[-1]
    clean, own = at_label(clean_logits, labels)
    order = jnp.argsort(-jnp.where(own, jnp.full_like(clean, -jnp.inf), clean), -1)

    def targeted(logits: Array, labels: Array, target: Array) -> Array:
        if classes >= 4:
            return dlr_targeted(logits, labels, target)
        logits, there = at_label(logits, target)
        return pick(logits, there) - pick(*at_label(logits, labels))

    def run(number: Array) -> Loss:
        rank = jnp.maximum(number - 1, 0) % (classes - 1)
        target = jnp.take(order, rank, axis=1)

        def loss(logits: Array, labels: Array) -> Array:
            untargeted = cross_entropy(logits, labels)
            return jnp.where(number == 0, untargeted, targeted(logits, labels, target))

        return loss

    return run
