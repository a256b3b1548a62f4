"""Schedules in epochs; each call makes `steps_per_epoch, epochs -> optax schedule`.

Recipes state their schedules in epochs; the loop knows how many steps an epoch has. They serve
learning rates and everything else that changes during training: `lam`, `eps`, momentum.
"""

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust import inputs

Schedule = Callable[[int, int], optax.Schedule]


def constant(*, value: float) -> Schedule:
    """The same learning rate throughout.

    Args:
      value: the learning rate.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for no number.

    Example:
      >>> from jaxrobust import schedules
      >>> schedules.constant(value=0.1)(10, 5)(49)
      0.1
    """
    inputs.as_number(value, name="value", infinite=True)
    return lambda steps_per_epoch, epochs: optax.constant_schedule(value)


def piecewise(*, value: float, drops: Sequence[tuple[float, float]]) -> Schedule:
    """A learning rate multiplied by a factor at given epochs.

    Args:
      value: the initial learning rate.
      drops: pairs `(epoch, factor)`; from that 0-based epoch on the rate is multiplied by the
        factor.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for values that are not finite, factors below 0, or epochs that do not rise.

    Example:
      >>> from jaxrobust import schedules
      >>> schedule = schedules.piecewise(value=0.1, drops=[(2, 0.5)])(10, 5)
      >>> float(schedule(19)), float(schedule(20))
      (0.10000000149011612, 0.05000000074505806)
    """
    inputs.as_number(value, name="value")
    _check_epochs("drops", [epoch for epoch, _ in drops])
    for _, factor in drops:
        inputs.as_number(factor, name="factors of drops", low=0)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        values = itertools.accumulate((factor for _, factor in drops), operator.mul, initial=value)
        constants = [optax.constant_schedule(v) for v in values]
        return optax.join_schedules(
            constants, [round(epoch * steps_per_epoch) for epoch, _ in drops]
        )

    return build


def stages(*, values: Sequence[tuple[float, float]]) -> Schedule:
    """A constant for each stage of training.

    Args:
      values: pairs `(epoch, value)` in order; the value holds from that 0-based epoch on. The
        first epoch is 0.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: if the epochs do not start at 0 or do not rise, or a value is NaN.

    Example:
      >>> from jaxrobust import schedules
      >>> lam = schedules.stages(values=[(0, float("inf")), (2, -1.0)])(10, 5)
      >>> float(lam(19)), float(lam(20))
      (inf, -1.0)
    """
    epochs_of = [epoch for epoch, _ in values]
    if not values or epochs_of[0] != 0:
        raise inputs.InputError(
            f"values must be (epoch, value) pairs from epoch 0 on, got {values}"
        )
    _check_epochs("values", epochs_of)
    for _, value in values:
        inputs.as_number(value, name="values", infinite=True)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        constants = [optax.constant_schedule(value) for _, value in values]
        bounds = [round(epoch * steps_per_epoch) for epoch in epochs_of[1:]]
        return optax.join_schedules(constants, bounds)

    return build


def linear(
    *, start: float, end: float, from_epoch: float = 0.0, to_epoch: float | None = None
) -> Schedule:
    """A ramp from one value to another, constant before and after.

    Args:
      start: the value until `from_epoch`.
      end: the value from `to_epoch` on.
      from_epoch: 0-based epoch at which the ramp begins.
      to_epoch: 0-based epoch at which it ends; default: the end of training.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for numbers that are not finite, or a ramp that ends before it begins.

    Example:
      >>> from jaxrobust import schedules
      >>> eps = schedules.linear(start=0.0, end=0.1, to_epoch=2)(10, 5)
      >>> [round(float(eps(step)), 3) for step in (0, 10, 20, 40)]
      [0.0, 0.05, 0.1, 0.1]
    """
    for name, number in (("start", start), ("end", end), ("from_epoch", from_epoch)):
        inputs.as_number(number, name=name)
    if to_epoch is not None:
        inputs.as_number(to_epoch, name="to_epoch", low=from_epoch)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        first = from_epoch * steps_per_epoch
        last = (epochs if to_epoch is None else to_epoch) * steps_per_epoch

        def value(step: Any) -> Array:
            part = (jnp.asarray(step, jnp.result_type(float)) - first) / max(last - first, 1)
            return start + (end - start) * jnp.clip(part, 0, 1)

        return value

    return build


def one_cycle(
    *,
    peak: float,
    start: float | None = None,
    end: float | None = None,
    warmup: float = 0.025,
) -> Schedule:
    """PyTorch's OneCycleLR stepped once per epoch: half a cosine up to `peak`, half a cosine down.

    SCORE's recipe: learning rate `one_cycle(peak=0.2)`, and, since OneCycleLR also cycles the
    momentum, `schedules={"optimizer.momentum": one_cycle(peak=0.85, start=0.95, end=0.95)}`.

    Args:
      peak: the value at the end of the warm-up.
      start: the value of the first epoch; default `peak / 25`.
      end: the value of the last epoch; default `peak / 25e4`.
      warmup: the warm-up's part of all epochs.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for values that are not finite, or a warm-up outside of [0, 1].

    Example:
      >>> from jaxrobust import schedules
      >>> rate = schedules.one_cycle(peak=0.2)(98, 400)
      >>> round(float(rate(0)), 4), round(float(rate(9 * 98)), 4)
      (0.008, 0.2)
    """
    first = peak / 25 if start is None else start
    final = peak / 25e4 if end is None else end
    for name, number in (("peak", peak), ("start", first), ("end", final)):
        inputs.as_number(number, name=name)
    inputs.as_number(warmup, name="warmup", low=0, high=1)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        top, last = warmup * epochs - 1, epochs - 1

        def value(step: Any) -> Array:
            epoch = jnp.floor(jnp.asarray(step, jnp.result_type(float)) / steps_per_epoch)
            up = _half_cosine(first, peak, epoch / top) if top > 0 else peak
            down = _half_cosine(peak, final, (epoch - top) / max(last - top, 1))
            return jnp.where(epoch <= top, up, down)

        return value

    return build


def exponential_warmup(*, peak: float, periods: float = 25.0, end: float = 0.0) -> Schedule:
    r"""Half a cosine over all steps, times a warm-up that approaches 1 exponentially.

    .. math:: (1 - e^{-(t + 1) n / T})\, \mathrm{cosine}(t / T)

    Args:
      peak: the value that the cosine begins at.
      periods: `n`: the warm-up has come to 63 % after this part of all steps.
      end: the value that the cosine ends at.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for values that are not finite, or `periods` that are not positive.

    Example:
      >>> from jaxrobust import schedules
      >>> rate = schedules.exponential_warmup(peak=1e-4)(100, 3)
      >>> [round(1e4 * float(rate(step)), 3) for step in (0, 11, 150, 299)]
      [0.08, 0.63, 0.5, 0.0]

    References:
      Ma and Yarats, On the Adequacy of Untuned Warmup for Adaptive Optimization, 2019
      (arXiv:1910.04209); the training of Adaptive Smoothing's mixing network.
    """

    for name, number in (("peak", peak), ("end", end)):
        inputs.as_number(number, name=name)
    inputs.as_number(periods, name="periods", low=0, positive=True)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        total = max(1, epochs * steps_per_epoch)

        def value(step: Any) -> Array:
            count = jnp.asarray(step, jnp.result_type(float))
            warm = 1 - jnp.exp(-(count + 1) * (periods / total))
            return warm * _half_cosine(peak, end, count / total)

        return value

    return build


def _check_epochs(name: str, epochs: Sequence[float]) -> None:
    """Refuses epochs that do not rise: Optax would take the values of others."""
    for epoch in epochs:
        inputs.as_number(epoch, name=f"epochs of {name}", low=0)
    if any(before >= after for before, after in itertools.pairwise(epochs)):
        raise inputs.InputError(f"epochs of {name} must rise, got {list(epochs)}")


def _half_cosine(start: float, end: float, part: Array) -> Array:
    return end + (start - end) / 2 * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1)))


def cosine(
    *,
    peak: float,
    warmup_epochs: float = 0.0,
    end: float = 0.0,
    per: Literal["step", "epoch"] = "step",
) -> Schedule:
    """Linear warm-up to `peak`, then half a cosine to `end` at the last step.

    Args:
      peak: the largest learning rate.
      warmup_epochs: length of the warm-up, from 0.
      end: the learning rate at the end.
      per: "step" moves at every step, "epoch" at every epoch.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for values that are not finite, a warm-up below 0, or another `per`.

    Example:
      >>> from jaxrobust import schedules
      >>> schedule = schedules.cosine(peak=0.1, warmup_epochs=1)(10, 5)
      >>> float(schedule(0)), round(float(schedule(10)), 6)
      (0.0, 0.1)
    """

    for name, number in (("peak", peak), ("end", end)):
        inputs.as_number(number, name=name)
    inputs.as_number(warmup_epochs, name="warmup_epochs", low=0)
    inputs.as_choice(per, name="per", choices=("step", "epoch"))

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        total = max(1, epochs * steps_per_epoch)
        warmup = min(round(warmup_epochs * steps_per_epoch), total - 1)
        initial = peak if warmup == 0 else 0.0
        schedule = optax.warmup_cosine_decay_schedule(initial, peak, warmup, total, end)

        def value(step: Any) -> Array:
            # Optax mixes its floats with the step's integer, which strict promotion refuses.
            count = jnp.asarray(step, jnp.result_type(float))
            if per == "epoch":
                count = jnp.floor(count / steps_per_epoch) * steps_per_epoch
            return schedule(count)

        return value

    return build


def smooth(
    *,
    start: float,
    end: float,
    from_epoch: float = 0.0,
    to_epoch: float | None = None,
    middle: float = 0.25,
    exponent: float = 4.0,
) -> Schedule:
    r"""A ramp that begins as a power and goes on as a line, with value and slope continuous.

    .. math:: v_0 + a (t - t_0)^e \quad \text{until the middle, then straight to } v_1

    The published ramp of the radius in certified training.

    Args:
      start: the value until `from_epoch`.
      end: the value from `to_epoch` on.
      from_epoch: 0-based epoch at which the ramp begins.
      to_epoch: 0-based epoch at which it ends; default: the end of training.
      middle: where in the ramp the line begins, as a share of it.
      exponent: of the power.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for numbers that are not finite, or a ramp that ends before it begins.

    Example:
      >>> from jaxrobust import schedules
      >>> eps = schedules.smooth(start=0.0, end=0.1, to_epoch=4)(10, 5)
      >>> [round(float(eps(step)), 4) for step in (0, 10, 20, 40)]
      [0.0, 0.0077, 0.0385, 0.1]

    References:
      Xu et al., Automatic Perturbation Analysis for Scalable Certified Robustness and Beyond, 2020
      (arXiv:2002.12920), its training code.
    """
    for name, number in (("start", start), ("end", end), ("from_epoch", from_epoch)):
        inputs.as_number(number, name=name)
    if to_epoch is not None:
        inputs.as_number(to_epoch, name="to_epoch", low=from_epoch)
    inputs.as_number(middle, name="middle", low=0, high=1)
    inputs.as_number(exponent, name="exponent", low=1)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        first = int(from_epoch * steps_per_epoch)
        last = int((epochs if to_epoch is None else to_epoch) * steps_per_epoch)
        knee = first + int(middle * (last - first))
        height = float(knee - first) ** exponent  # at the knee, in units of the factor
        slope = exponent * float(knee - first) ** (exponent - 1)
        scale = (last - knee) * slope + height
        factor = (end - start) / scale if scale else 0.0

        def value(step: Any) -> Array:
            t = jnp.asarray(step, jnp.result_type(float))
            power = start + factor * jnp.clip(t - first, 0, None) ** exponent
            share = (t - knee) / max(last - knee, 1)
            at_knee = start + factor * height
            line = at_knee + (end - at_knee) * share
            ramp = jnp.where(t <= knee, power, line)
            return jnp.where(t < first, start, jnp.where(t >= last, end, ramp))

        return value

    return build


def stairs(
    *,
    start: float,
    end: float,
    from_epoch: float = 0.0,
    to_epoch: float | None = None,
    every: float = 1.0,
) -> Schedule:
    """A ramp in equal steps, the first of them at its beginning; constant before and after.

    Args:
      start: the value before `from_epoch`.
      end: the value from the last step on.
      from_epoch: 0-based epoch of the first step.
      to_epoch: 0-based epoch at which the ramp ends; default: the end of training.
      every: epochs from step to step.

    Returns:
      `(steps_per_epoch, epochs) -> schedule`.

    Raises:
      InputError: for numbers that are not finite, or a ramp that ends before it begins.

    Example:
      >>> from jaxrobust import schedules
      >>> eps = schedules.stairs(start=0.0, end=0.1, to_epoch=4, every=2)(10, 5)
      >>> [round(float(eps(step)), 3) for step in (0, 19, 20, 40)]
      [0.05, 0.05, 0.1, 0.1]
    """
    for name, number in (("start", start), ("end", end), ("from_epoch", from_epoch)):
        inputs.as_number(number, name=name)
    if to_epoch is not None:
        inputs.as_number(to_epoch, name="to_epoch", low=from_epoch)
    inputs.as_number(every, name="every", low=0, positive=True)

    def build(steps_per_epoch: int, epochs: int) -> optax.Schedule:
        first = from_epoch * steps_per_epoch
        last = (epochs if to_epoch is None else to_epoch) * steps_per_epoch
        count = max(int((last - first) / (every * steps_per_epoch)), 1)

        def value(step: Any) -> Array:
            t = jnp.asarray(step, jnp.result_type(float))
            number = jnp.ceil((t - first + 0.1) / max(last - first, 1) * count)
            found = start + (end - start) * jnp.clip(number, 0, count) / count
            return jnp.where(t < first, start, jnp.where(t >= last, end, found))

        return value

    return build
