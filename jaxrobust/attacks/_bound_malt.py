"""A targeted attack on the targets that MALT ranks first, one part for each."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.attacks._malt import malt_targets
from jaxrobust.inputs import InputError, as_batch, as_count
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.threats import norm_of
from jaxrobust.typing import LogitsFn


class MALTState(NamedTuple):
    """The progress of the attack; every leaf is per example.

    Attributes:
      images: `[b, h, w, c]`, the misclassified image, else the clean one.
      loss: `[b]`, the attack's loss at these images; the highest where nothing was found.
      success: `[b]` bool, it is misclassified.
      targets: `[b, t]` int32.
      tried: `[b]` int32, how many of them were tried.
      queries: `[b]` int32, forward passes.
      backwards: `[b]` int32, backward passes.
    """

    images: Array
    loss: Array
    success: Array
    targets: Array
    tried: Array
    queries: Array
    backwards: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MALT:
    """A targeted attack on the nearest boundaries first; also an `attacks.InParts`.

    The targets are those of `attacks.malt_targets` in the norm of the attack's threat. Any wrong
    class counts as success, whichever was the target.

    Args:
      attack: takes targets `[b]` as its last argument: `APGD` with a targeted loss, or `FAB`.
      targets: classes that are tried, one after the other.
      candidates: the most likely wrong classes that are ranked.

    Raises:
      ValueError: if the attack takes no targets, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> inner = attacks.APGD(threat=threats.linf(0.1), loss="dlr_targeted", steps=20)
      >>> attacks.MALT(attack=inner, targets=2, candidates=9).passes(10, targeted=False)
      (43, 51)

    References:
      MALT, 2024 (arXiv:2407.02240), which runs APGD with 100 steps on 9 targets.
    """

    attack: Any
    targets: int = field(default=9, metadata={"static": True})
    candidates: int = field(default=100, metadata={"static": True})

    def __post_init__(self) -> None:
        as_count(self.targets, name="targets")
        as_count(self.candidates, name="candidates")
        loss = getattr(self.attack, "loss", "targeted")
        if not hasattr(self.attack, "passes") or not str(loss).endswith("targeted"):
            raise InputError(
                "attack must take target classes (APGD with loss 'dlr_targeted' or "
                f"'margin_targeted', FAB), got {self.attack!r:.200}"
            )

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        images, labels = as_batch(images, labels)
        if not len(images):
            return nothing_attacked(images)
        keys = per_example_keys(key, len(images))
        state = self.begin(logits_fn, keys, images, labels)

        def part(number: Array, state: MALTState) -> MALTState:
            new = self.go_on(logits_fn, number, state, keys, images, labels)
            return where(state.success, state, new)

        count = state.targets.shape[1]
        return self.end(jax.lax.fori_loop(0, count, part, state), images)

    @property
    def threat(self) -> Any:
        """The attack's."""
        return self.attack.threat

    @property
    def parts(self) -> int:
        """The largest number of targets."""
        return min(self.targets, self.candidates)

    def begin(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> MALTState:
        """The ranking."""
        counts: dict[str, Any] = {"candidates": self.candidates, "targets": self.targets}
        norm: Any = norm_of(self.threat)
        targets = malt_targets(logits_fn, images, labels, norm=norm, **counts)
        none = jnp.zeros(len(images), jnp.int32)
        ranked = min(self.candidates, jax.eval_shape(logits_fn, images).shape[-1] - 1)
        return MALTState(
            images=images,
            loss=jnp.full(len(images), -jnp.inf, jnp.result_type(float)),
            success=none.astype(bool),
            targets=targets,
            tried=none,
            queries=none + 1,
            backwards=none + ranked,
        )

    def go_on(
        self,
        logits_fn: LogitsFn,
        number: Array,
        state: MALTState,
        key: Array,
        images: Array,
        labels: Array,
    ) -> MALTState:
        """The state after one more target."""
        place = jnp.asarray(number, jnp.int32)
        target = jax.lax.dynamic_index_in_dim(state.targets, place, 1, keepdims=False)
        found = self.attack(logits_fn, fold_keys(key, place), images, labels, target)
        loss = found.loss.astype(state.loss.dtype)
        forwards, backwards = self.attack.passes(2, targeted=True)
        return MALTState(
            images=where(found.success, found.images, state.images),
            loss=jnp.where(found.success, loss, jnp.fmax(loss, state.loss)),
            success=state.success | found.success,
            targets=state.targets,
            tried=state.tried + 1,
            queries=state.queries + forwards,
            backwards=state.backwards + backwards,
        )

    def done(self, state: MALTState) -> Array:
        """`[b]` bool: misclassified, or all targets were tried."""
        return state.success | (state.tried >= state.targets.shape[1])

    def end(self, state: MALTState, images: Array) -> Attacked:
        """The result, and the passes that it took."""
        passes = {"queries": state.queries, "backwards": state.backwards}
        return Attacked(state.images, state.success, state.loss, **passes)

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most."""
        forwards, backwards = self.attack.passes(classes, targeted=True)
        ranked = min(self.candidates, classes - 1)
        tried = min(self.targets, ranked)
        return 1 + tried * forwards, ranked + tried * backwards

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {**self.attack.settings, "targets": self.targets, "candidates": self.candidates}
