"""How APGD moves in the l_1 ball: sparse steps, the sparsity adapted to the best point's."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._apgd_checkpoints import per_image, shrunk
from jaxrobust.threats import l1_box_correction

FIRST_SHARE = 0.2  # AutoAttack's


class Sparsity(NamedTuple):
    """The state of the checks, `[b]` in every leaf."""

    share: Array  # of the values that a step moves
    changed: Array  # number of values in which the best point differed at the last check


def radius_stages(steps: int) -> list[tuple[float, int]]:
    """(factor of the radius, iterations) of the three stages of AutoAttack's l_1 attack."""
    first = min(math.ceil(0.3 * steps), steps)
    second = min(first, steps - first)
    return [(3.0, first), (2.0, second), (1.0, steps - first - second)]


def sparsity_checks(steps: int) -> np.ndarray:
    """`[T]` bool: whether sparsity and step size are examined after an iteration."""
    return np.arange(1, steps + 1) % max(int(0.04 * steps), 1) == 0


@dataclass(frozen=True)
class SparseSteps:
    """Steps of the images `[b, h, w, c]` in an l_1 ball of radius `eps` `[b]`.

    The sparsity follows counts of exact non-zeros, which include residues of float32 rounding. So
    every sum uses AutoAttack's order, and nothing is clipped.
    """

    images: Array
    eps: Array
    fresh: bool  # started from noise; otherwise the sparsity follows the start's
    share: ArrayLike | None = None  # of the first steps, whatever the start

    def start(self, noise: Array) -> Array:
        """The noise itself, projected."""
        return jnp.clip(self._added(noise), 0, 1)

    def project(self, x: Array) -> Array:
        """The nearest point of ball and box, with residues of rounding."""
        return self._added(x - self.images)

    def visible(self, x: Array) -> Array:
        """`x` as the model sees it: in the box and, including residues, in the ball."""
        x = jnp.clip(x, 0, 1)
        size = jnp.sum(jnp.abs(x - self.images), (1, 2, 3), keepdims=True)
        return shrunk(x, self.images, size, per_image(self.eps), slack=5e-6)

    def begin(self, x: Array) -> Array:
        """The start of a run that is given `x`."""
        return x if self.fresh else jnp.clip(self.project(x), 0, 1)

    def first(self, start: Array, losses: Array) -> tuple[Array, Sparsity]:
        """The first step size and memory."""
        values = math.prod(self.images.shape[1:])
        if self.fresh or self.share is not None:
            full = jnp.full(losses.shape, values, self.images.dtype)
            share = jnp.asarray(FIRST_SHARE if self.share is None else self.share, full.dtype)
            return self.eps, Sparsity(jnp.broadcast_to(share, full.shape), full)
        changed = self._changed(start)
        return self.eps, Sparsity(changed / values / 1.5, changed)

    def move(
        self, x: Array, _: Array, grads: Array, size: Array, memory: Sparsity, __: Array
    ) -> Array:
        """Equal steps in the values with the largest gradients."""
        strength = jnp.abs(grads).reshape(len(grads), -1)
        values = strength.shape[1]
        rank = jnp.clip((1 - memory.share) * values, 0, values - 1).astype(jnp.int32)
        threshold = per_image(ascending_at(strength, rank))
        direction = jnp.where(jnp.abs(grads) >= threshold, jnp.sign(grads), 0)
        moved = jnp.sum(jnp.abs(direction), (1, 2, 3), keepdims=True)
        return self._added(x + per_image(size) * (direction / (moved + 1e-10)) - self.images)

    def adjust(
        self,
        memory: Sparsity,
        size: Array,
        _: Array,
        best: tuple[Array, Array],
        due: Array,
    ) -> tuple[Array, Sparsity, Array]:
        """Step size and memory after an iteration, and `[b]`: go back to the best point.

        If the best point has become sparser, the search restarts from it with a full step.
        """
        changed = self._changed(best[0])
        before = memory.changed
        sparser = (changed / jnp.maximum(before, 1) < 0.95) & (before > 0)
        values = math.prod(self.images.shape[1:])
        resized = jnp.clip(jnp.where(sparser, self.eps, size / 1.5), self.eps / 10, self.eps)
        checked = Sparsity(changed / values / 1.5, changed)
        memory = jax.tree.map(lambda a, b: jnp.where(due, a, b), checked, memory)
        return jnp.where(due, resized, size), memory, sparser & due

    def _added(self, u: Array) -> Array:
        correction = jax.vmap(l1_box_correction)(u, self.images, self.eps)
        added = (self.images + u) + correction
        return jnp.where(per_image(self.eps) > 0, added, self.images)

    def _changed(self, x: Array) -> Array:
        return jnp.sum((x != self.images).astype(x.dtype), (1, 2, 3))


def ascending_at(values: Array, index: Array) -> Array:
    """Per row, the entry number `index` `[b]` of `values` `[b, d] >= 0` sorted ascending.

    Nonnegative floats are ordered as their bit patterns, so the entry is found bit by bit from
    counts, exactly; many times faster on CPU than a sort, and no backend sorts fast.
    """
    bits = jnp.finfo(values.dtype).bits
    patterns = jax.lax.bitcast_convert_type(jnp.abs(values), jnp.dtype(f"int{bits}"))

    def set_bit(i: Array, found: Array) -> Array:
        higher = found | (jnp.ones_like(found) << (bits - 2 - i).astype(found.dtype))
        below = jnp.sum((patterns < higher[:, None]).astype(jnp.int32), -1)
        return jnp.where(below <= index.astype(below.dtype), higher, found)

    found = jax.lax.fori_loop(0, bits - 1, set_bit, jnp.zeros(len(values), patterns.dtype))
    return jax.lax.bitcast_convert_type(found, values.dtype)
