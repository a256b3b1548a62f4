"""E-AT: one norm per batch, the one drawn more often in which the network is weaker."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import Attacked
from jaxrobust.inputs import InputError, as_array, as_batch, as_number
from jaxrobust.keys import per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._norms import balls, strongest
from jaxrobust.objectives._objective import (
    Batch,
    Clock,
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
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class EAT:
    """E-AT: adversarial training in a norm that is drawn for each batch.

    A norm's probability is proportional to one minus its robust accuracy so far in the run, as
    counted by the training attacks. The attack is APGD on cross-entropy without a random start, and
    returns the visited point of highest loss.

    The threat must be a union of norms; the paper's l_inf and l_1 are enough for l_2 as well.

    Cost: `2 * steps + 5` forward units per image: one norm is attacked.

    Args:
      steps: attack steps.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.eat(steps=10).passes
      (Pass(name='adv', view='adv'),)

    References:
      Croce and Hein, Adversarial Robustness Against Multiple and Single l_p-Threat Models via
      Quick Fine-Tuning of Robust Classifiers, 2022 (arXiv:2105.12508), Section 3.
    """

    steps: int = field(default=10, metadata={"static": True})
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """`correct` and `seen` `[n]`: examples that withstood each norm, and all attacked in it."""
        none = jnp.zeros(len(balls(sizes.threat, "eat")), jnp.int32)
        return {"correct": none, "seen": jnp.zeros_like(none)}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`norm` `[]` int32, the position of the batch's norm in the union."""
        images, _ = as_batch(*batch)
        count = len(balls(threat, "eat"))
        keys = per_example_keys(key, len(images))
        none = jnp.zeros(count)
        held = {} if state is None else state
        chances = norm_probabilities(held.get("correct", none), held.get("seen", none))
        draw = jax.random.uniform(batch_key(keys, state), (), chances.dtype)
        return {"norm": drawn_norm(draw, chances)}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """APGD in the norm that was drawn."""
        batch = hard_batch("eat", batch)
        attacks = [
            lambda ball=ball: _found(strongest(logits_fn, batch, ball, steps=self.steps))
            for ball in balls(threat, "eat").values()
        ]
        norm = jnp.reshape(jnp.asarray(draws["norm"]), ()).astype(jnp.int32)
        images, robust = jax.lax.switch(norm, attacks)
        every = jnp.broadcast_to(norm, (len(images),))
        return Views({"adv": images}, {"robust": robust, "norm": every})

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

    def observe(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState,
    ) -> ObjectiveState:
        """How many examples were attacked in each norm, and withstood it."""
        norms = jnp.arange(len(state["seen"]), dtype=jnp.int32)
        here = extras["norm"][:, None] == norms[None]
        count = partial(jnp.sum, axis=0, dtype=jnp.int32)
        return {"correct": count(here & extras["robust"][:, None]), "seen": count(here)}

    def end_step(self, state: ObjectiveState, sums: ObjectiveState, clock: Clock) -> ObjectiveState:
        """Adds up over the run."""
        return {name: state[name] + sums[name].astype(state[name].dtype) for name in sums}


def norm_probabilities(correct: ArrayLike, seen: ArrayLike) -> Array:
    """The chances of the norms: proportional to one minus the robust accuracy in each.

    They are equal while a norm has no count yet, and where every norm is withstood always. (The
    authors' code fails there.)

    Args:
      correct: `[n]`, examples that withstood each norm.
      seen: `[n]`, examples attacked in each norm.

    Returns:
      `[n]`, which sum to 1.

    Raises:
      ValueError: if the counts are no counts, or of different shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.objectives import norm_probabilities
      >>> norm_probabilities(jnp.array([1, 3]), jnp.array([4, 4])).tolist()
      [0.75, 0.25]

    References:
      Croce and Hein, 2022 (arXiv:2105.12508), Section 3.
    """
    for name, value in (("correct", correct), ("seen", seen)):
        as_number(value, name=name, low=0)
    right, total = (jnp.asarray(as_array(v), jnp.result_type(float)) for v in (correct, seen))
    if right.ndim != 1 or right.shape != total.shape:
        raise InputError(
            f"correct and seen must be counts [n] of one shape, got {right.shape}, {total.shape}"
        )
    weights = 1 - right / jnp.where(total > 0, total, 1)
    equal = jnp.any(total == 0) | (jnp.sum(weights) <= 0)
    weights = jnp.where(equal, 1, weights)
    return weights / jnp.sum(weights)


def drawn_norm(draw: Array, chances: Array) -> Array:
    """The first norm whose cumulative chance is above a draw from (0, 1); `[]` int32."""
    passed = jnp.sum((draw >= jnp.cumsum(chances)).astype(jnp.int32))
    return jnp.minimum(passed, len(chances) - 1).astype(jnp.int32)


def _found(attacked: Attacked) -> tuple[Array, Array]:
    return attacked.images, ~attacked.success
