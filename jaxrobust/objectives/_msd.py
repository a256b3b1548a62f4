"""MSD: an attack that chooses its norm at every step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import network as checked_network
from jaxrobust.inputs import InputError, as_batch
from jaxrobust.keys import per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._gradient import cut, moved, over_images
from jaxrobust.objectives._norms import balls, picked
from jaxrobust.objectives._objective import (
    Batch,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    batch_key,
    correct,
    hard_batch,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.precision import shown, widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn

STEP_SIZES = {"linf": 0.003, "l2": 0.05, "l1": 0.05}
ORDER = ("l1", "l2", "linf")  # of equal proposals the last is taken
FEWEST, MOST = 5, 20  # values that an l_1 step moves


class _Search(NamedTuple):
    """The loop's carry."""

    delta: Array
    best: Array  # the delta of highest loss so far
    loss: Array  # there, `[b]`


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MSD:
    """MSD: every attack step tries a step in each norm, and takes the one of highest loss.

    The attack starts at the clean image and returns the visited point of highest cross-entropy. An
    l_1 step moves between 5 and 20 values, a number drawn for the batch. Its projection acts on
    each example alone; the authors' code projects the whole batch once one example is outside its
    ball, and pushes those inside out to the sphere.

    The threat must be a union of norms.

    Cost: `(norms + 2) * steps + 3` forward units per image.

    Args:
      steps: attack steps.
      step_sizes: by norm; default 0.003 for l_inf, 0.05 for l_2, and for l_1 0.05, the size of a
        step on 20 values. May be traced.
      attack_statistics: BatchNorm in the attack: "running", or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.msd(steps=50).passes
      (Pass(name='adv', view='adv'),)

    References:
      Maini et al., Adversarial Robustness Against the Union of Multiple Perturbation Models, 2020
      (arXiv:1909.04068), Algorithm 1.
    """

    steps: int = field(default=50, metadata={"static": True})
    step_sizes: Mapping[str, ArrayLike] | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)
        if isinstance(self.step_sizes, Mapping) and not set(self.step_sizes) <= set(STEP_SIZES):
            raise InputError(
                f"step_sizes must be by norm, {', '.join(STEP_SIZES)}; got {dict(self.step_sizes)}"
            )

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """Nothing: only the key of the whole batch is of interest."""
        return {}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`counts` `[steps]` int32, values that each l_1 step moves, from 5 to 20."""
        images, _ = as_batch(*batch)
        keys = per_example_keys(key, len(images))
        return {
            "counts": jax.random.randint(batch_key(keys, state), (self.steps,), FEWEST, MOST + 1)
        }

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """The search, from the clean image."""
        images, labels = batch = hard_batch("msd", batch)
        members = balls(threat, "msd")
        network, wide = checked_network(logits_fn, images), widened(images)
        counts = jnp.asarray(draws["counts"])

        def losses(delta: Array) -> Array:
            return cross_entropy(network(shown(wide + delta, images)), labels)

        def step(number: Array, search: _Search) -> _Search:
            gradient = jax.grad(lambda delta: jnp.sum(losses(delta)))(search.delta)
            gradient = jnp.nan_to_num(gradient)
            tried = self._proposals(members, images, search.delta, gradient, counts[number])
            values = jax.lax.map(losses, jnp.stack(tried))
            last = len(tried) - 1 - jnp.argmax(values[::-1], 0)  # NaN is the highest
            delta, value = picked(last, tried), picked(last, list(values))
            better = (value > search.loss) | jnp.isnan(value)
            kept = jnp.where(better[:, None, None, None], delta, search.best)
            return _Search(delta, kept, jnp.where(better, value, search.loss))

        nothing = jnp.zeros_like(wide)
        begin = _Search(nothing, nothing, jnp.zeros_like(jax.eval_shape(losses, nothing)))
        found = jax.lax.fori_loop(0, self.steps, step, begin)
        return Views({"adv": moved(images, found.best)}, {})

    def _proposals(
        self, members: dict[str, Any], images: Array, delta: Array, gradient: Array, count: Array
    ) -> list[Array]:
        """A step in each norm from the same point, projected."""
        sizes = STEP_SIZES | dict(self.step_sizes or {})
        found = []
        for norm in ORDER:
            if norm not in members:
                continue
            eps = over_images(members[norm].eps, images, "eps")
            size = over_images(sizes[norm], images, f"step_sizes of {norm}")
            if norm == "linf":
                moved_to = jnp.clip(delta + size * jnp.sign(gradient), -eps, eps)
            elif norm == "l2":
                length = _length(gradient)
                moved_to = delta + size * gradient / jnp.where(length > 0, length, 1)
                moved_to = moved_to * jnp.minimum(1, eps / jnp.maximum(_length(moved_to), 1e-12))
            else:
                moved_to = _l1_step(delta, images, gradient, size, count)
                moved_to = _onto_l1_ball(moved_to, eps)
            found.append(cut(moved_to, images))
        return found

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images."""
        loss = cross_entropy(logits["adv"], batch.labels)
        return loss, {"robust_accuracy": correct(logits["adv"], batch.labels)}


def _length(values: Array) -> Array:
    """The l_2 norm of each image, `[b, 1, 1, 1]`."""
    return jnp.sqrt(jnp.sum(values * values, (1, 2, 3), keepdims=True))


def _l1_step(delta: Array, images: Array, gradient: Array, size: Array, count: Array) -> Array:
    """Equal steps in the values of largest gradients, of those that have room in the box."""
    point = widened(images) + delta
    each = size * MOST / count.astype(delta.dtype)
    stuck = ((gradient < 0) & (point <= each)) | ((gradient > 0) & (point >= 1 - each))
    strength = jnp.where(stuck | (point <= 0) | (point >= 1), 0, jnp.abs(gradient))
    flat = strength.reshape(len(strength), -1)
    most = jax.lax.top_k(flat, min(MOST, flat.shape[1]))[0]
    place = jnp.minimum(count, most.shape[1]) - 1
    threshold = jnp.take(most, place, axis=1)[:, None, None, None]
    chosen = (strength >= threshold) & (strength > 0)
    return delta + each * jnp.where(chosen, jnp.sign(gradient), 0)


def _onto_l1_ball(delta: Array, eps: Array) -> Array:
    """The nearest point of each example's l_1 ball, without the box."""
    size = jnp.abs(delta).reshape(len(delta), -1)
    radius = jnp.broadcast_to(eps, (len(delta), 1, 1, 1)).reshape(-1, 1)
    falling = -jnp.sort(-size, axis=1)
    ranks = jnp.arange(1, size.shape[1] + 1, dtype=size.dtype)[None]
    levels = (jnp.cumsum(falling, 1) - radius) / ranks
    last = jnp.sum((falling > levels).astype(jnp.int32), 1, keepdims=True) - 1
    level = jnp.take_along_axis(levels, jnp.maximum(last, 0), axis=1)
    inside = jnp.sum(size, 1, keepdims=True) <= radius
    level = jnp.where(inside, 0, level)[:, :, None, None]
    return jnp.sign(delta) * jnp.maximum(jnp.abs(delta) - level, 0)
