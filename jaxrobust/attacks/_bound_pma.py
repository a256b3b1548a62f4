"""PMA with its settings bound, in parts; finished examples are dropped between parts."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxrobust.attacks._attack import check_linf
from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._pma import (
    RUNS,
    PMAState,
    Problem,
    pma,
    pma_begin,
    pma_end,
    pma_run,
    problem_of,
)
from jaxrobust.inputs import as_batch, as_count
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PMA:
    """`attacks.pma` with its settings bound; also an `attacks.InParts` whose parts are runs.

    Args:
      threat: the l_inf ball.
      steps: number of steps of each of the two runs.

    Raises:
      ValueError: if the threat is not the l_inf ball, or the number of steps is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.PMA(threat=threats.linf(0.1)).passes(10, targeted=False)
      (203, 200)
    """

    threat: Any
    steps: int = field(default=100, metadata={"static": True})

    def __post_init__(self) -> None:
        check_linf(self)
        as_count(self.steps, name="steps")

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        options: dict[str, Any] = {"eps": self.threat.eps, "steps": self.steps}
        return pma(logits_fn, key, images, labels, **options)

    @property
    def parts(self) -> int:
        """The two runs."""
        return RUNS

    def begin(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> PMAState:
        """The verdict on the clean images."""
        return pma_begin(self._problem(logits_fn, images, labels))

    def go_on(
        self,
        logits_fn: LogitsFn,
        number: Array,
        state: PMAState,
        key: Array,
        images: Array,
        labels: Array,
    ) -> PMAState:
        """The state after a run."""
        return pma_run(self._problem(logits_fn, images, labels), state, key, number)

    def done(self, state: PMAState) -> Array:
        """`[b]` bool: misclassified."""
        return state.success

    def end(self, state: PMAState, images: Array) -> Attacked:
        """The result, and the passes that it took."""
        return pma_end(images, state)

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most."""
        return 1 + RUNS * (self.steps + 1), RUNS * self.steps

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"loss": "probability_margin", "steps": self.steps, "restarts": RUNS}

    def _problem(self, logits_fn: LogitsFn, images: Array, labels: Array) -> Problem:
        images, labels = as_batch(images, labels)
        return problem_of(logits_fn, images, labels, eps=self.threat.eps, steps=self.steps)
