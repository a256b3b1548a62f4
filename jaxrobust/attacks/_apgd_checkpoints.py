"""How APGD moves in the l_inf and l_2 balls: momentum, checkpoints, halved steps."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.precision import rounded_inward


class Checkpoints(NamedTuple):
    """The parameters of each iteration, as arrays `[T]`."""

    momentum: Any  # weight of the new step; the rest goes to the previous one
    due: Any  # the step size is examined after this iteration
    few: Any  # this many increases of the loss since the last check, or fewer, halve the step


class Progress(NamedTuple):
    """The state of the checks, `[b]` in every leaf."""

    last_loss: Array  # of the previous iteration
    increases: Array  # of the loss since the last check
    reduced: Array  # whether the last check halved the step
    best_loss: Array  # at the last check


def checkpoints(steps: int) -> Checkpoints:
    """The schedule of `steps` iterations.

    The first check comes after 22 % of the iterations, each later period is 3 % shorter, and
    none is below 6 %. AutoAttack truncates the products of binary floats, and so does this
    function.
    """
    period = max(int(0.22 * steps), 1)
    shrink, smallest = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    momentum, due, few = np.full(steps, 0.75), np.zeros(steps, bool), np.zeros(steps, np.int32)
    momentum[:1] = 1
    check = period - 1
    while check < steps:
        due[check], few[check] = True, int(0.75 * period)
        period = max(period - shrink, smallest)
        check += period
    return Checkpoints(momentum, due, few)


@dataclass(frozen=True)
class CheckpointSteps:
    """Steps of the images `[b, h, w, c]` in a ball of radius `eps` `[b]`."""

    images: Array
    eps: Array
    fresh: bool  # started from noise
    norm: str

    def start(self, noise: Array) -> Array:
        """l_inf: a uniform draw scaled to the boundary of the ball; l_2: a point on the sphere."""
        if self.norm == "linf":
            largest = jnp.max(jnp.abs(noise), (1, 2, 3), keepdims=True)
            direction = noise / (largest + 1e-12)
        else:
            direction = _unit(noise)
        return jnp.clip(self.images + per_image(self.eps) * direction, 0, 1)

    def project(self, x: Array) -> Array:
        """Into the ball, then into the box."""
        eps = per_image(self.eps)
        if self.norm == "linf":
            return jnp.clip(jnp.clip(x, self.images - eps, self.images + eps), 0, 1)
        moved = x - self.images
        return jnp.clip(self.images + _unit(moved) * jnp.minimum(eps, _norm(moved)), 0, 1)

    def visible(self, x: Array) -> Array:
        """`x` as the model sees it."""
        if self.norm == "linf":
            return x
        return shrunk(x, self.images, _norm(x - self.images), per_image(self.eps), slack=5e-7)

    def begin(self, x: Array) -> Array:
        """The start of a run that is given `x`."""
        return x if self.fresh else self.project(x)

    def first(self, _: Array, losses: Array) -> tuple[Array, Progress]:
        """The first step size and memory, from the start and its losses.

        The loss "before" the first iteration is 0, whatever the loss of the start: AutoAttack
        compares with a row of its history that is still empty, and reported accuracies include this
        behaviour.
        """
        nothing = jnp.zeros_like(losses)
        memory = Progress(
            last_loss=nothing,
            increases=jnp.zeros(losses.shape, jnp.int32),
            reduced=jnp.ones(losses.shape, bool),
            best_loss=losses,
        )
        return 2 * self.eps, memory

    def move(
        self, x: Array, previous: Array, grads: Array, size: Array, _: Progress, row: Checkpoints
    ) -> Array:
        """A step along the gradient, mixed with the previous step."""
        direction = jnp.sign(grads) if self.norm == "linf" else _unit(grads)
        stepped = self.project(x + per_image(size) * direction)
        weight = jnp.asarray(row.momentum, x.dtype)
        return self.project(x + weight * (stepped - x) + (1 - weight) * (x - previous))

    def adjust(
        self,
        memory: Progress,
        size: Array,
        losses: Array,
        best: tuple[Array, Array],
        row: Checkpoints,
    ) -> tuple[Array, Progress, Array]:
        """Step size and memory after an iteration, and `[b]`: go back to the best point.

        A check halves the step if the loss rose in at most three quarters of the iterations since
        the last check, or if the best loss did not improve although the step was kept.
        """
        _, best_loss = best
        increases = memory.increases + (losses > memory.last_loss).astype(jnp.int32)
        oscillating = increases <= row.few
        stalled = ~memory.reduced & (memory.best_loss >= best_loss)
        reduce = oscillating | stalled
        checked = Progress(losses, jnp.zeros_like(increases), reduce, best_loss)
        unchecked = memory._replace(last_loss=losses, increases=increases)
        memory = jax.tree.map(lambda a, b: jnp.where(row.due, a, b), checked, unchecked)
        reduce = reduce & row.due
        return jnp.where(reduce, size / 2, size), memory, reduce


def per_image(values: Array) -> Array:
    """`[b]` as `[b, 1, 1, 1]`."""
    return values.reshape(-1, 1, 1, 1)


def shrunk(x: Array, centre: Array, size: Array, radius: Array, *, slack: float) -> Array:
    """`x`, scaled back to `radius` where rounding exceeded it by a share of more than `slack`.

    Rounding a sum in [0, 1] matters if the radius is small, or if it adds up over a large image.
    """
    shorter = (x - centre) * (radius / jnp.where(size > 0, size, 1))
    inside = rounded_inward(centre + shorter, centre, jnp.abs(shorter))
    return jnp.where(size > radius * (1 + slack), inside, x)


def _norm(x: Array) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), (1, 2, 3), keepdims=True))


def _unit(x: Array) -> Array:
    return x / (_norm(x) + 1e-12)
