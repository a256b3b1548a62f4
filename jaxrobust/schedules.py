"""Learning-rate schedules in epochs; each call makes `steps_per_epoch, epochs -> optax schedule`.

Recipes state their schedules in epochs; the loop knows how many steps an epoch has.
"""

import itertools
import operator
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import optax

Schedule = Callable[[int, int], optax.Schedule]


def constant(*, value: float) -> Schedule:
    """The same learning rate throughout.

    Args:
      value: the learning rate.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Example:
      >>> from jaxrobust import schedules
      >>> schedules.constant(value=0.1)(10, 5)(49)
      0.1
    """
    return lambda steps_per_epoch, epochs: optax.constant_schedule(value)


def piecewise(*, value: float, drops: Sequence[tuple[float, float]]) -> Schedule:
    """A learning rate multiplied by a factor at given epochs.

    Args:
      value: the initial learning rate.
      drops: pairs `(epoch, factor)`; from that 0-based epoch on the rate is multiplied by the
        factor.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Example:
      >>> from jaxrobust import schedules
      >>> schedule = schedules.piecewise(value=0.1, drops=[(2, 0.5)])(10, 5)
      >>> float(schedule(19)), float(schedule(20))
      (0.10000000149011612, 0.05000000074505806)
    """

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        values = itertools.accumulate((factor for _, factor in drops), operator.mul, initial=value)
        constants = [optax.constant_schedule(v) for v in values]
        return optax.join_schedules(
            constants, [round(epoch * steps_per_epoch) for epoch, _ in drops]
        )

    return build


def cosine(*, peak: float, warmup_epochs: float = 0.0, end: float = 0.0) -> Schedule:
    """Linear warm-up to `peak`, then half a cosine to `end` at the last step.

    Args:
      peak: the largest learning rate.
      warmup_epochs: length of the warm-up, from 0.
      end: the learning rate at the end.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Example:
      >>> from jaxrobust import schedules
      >>> schedule = schedules.cosine(peak=0.1, warmup_epochs=1)(10, 5)
      >>> float(schedule(0)), round(float(schedule(10)), 6)
      (0.0, 0.1)
    """

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        total = max(1, epochs * steps_per_epoch)
        warmup = min(round(warmup_epochs * steps_per_epoch), total - 1)
        initial = peak if warmup == 0 else 0.0
        schedule = optax.warmup_cosine_decay_schedule(initial, peak, warmup, total, end)
        # Optax mixes its floats with the step's integer, which strict promotion refuses.
        return lambda step: schedule(jnp.asarray(step, jnp.float32))

    return build
