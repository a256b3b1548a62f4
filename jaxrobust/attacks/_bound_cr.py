"""CR with its settings bound, in parts; finished examples are dropped between parts."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxrobust.attacks._attack import check_linf
from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._cr import (
    CRState,
    Plan,
    Problem,
    cr,
    cr_begin,
    cr_done,
    cr_end,
    cr_period,
    drawn,
    first_noise,
    plan_of,
    problem_of,
)
from jaxrobust.inputs import as_batch
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CR:
    """`attacks.cr` with its settings bound; also an `attacks.InParts` whose parts are periods.

    Args:
      threat: the l_inf ball.
      steps: number of steps of an attempt at a target.
      period: steps after which the relaxation is halved.
      targets: target classes.
      restarts: calls.

    Raises:
      ValueError: if the threat is not the l_inf ball, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.CR(threat=threats.linf(0.1), restarts=1).passes(10, targeted=False)
      (627, 460)
    """

    threat: Any
    steps: int = field(default=150, metadata={"static": True})
    period: int = field(default=30, metadata={"static": True})
    targets: int = field(default=3, metadata={"static": True})
    restarts: int = field(default=5, metadata={"static": True})

    def __post_init__(self) -> None:
        check_linf(self)
        plan_of(**self._counts)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch until the last example is done."""
        options: dict[str, Any] = {"eps": self.threat.eps, **self._counts}
        return cr(logits_fn, key, images, labels, **options)

    @property
    def parts(self) -> int:
        """The number of periods of all attempts in all calls."""
        return self._plan.periods * self.targets * self.restarts

    def begin(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> CRState:
        """The clean images and the order of the targets."""
        problem = self._problem(logits_fn, images, labels)
        return cr_begin(problem, first_noise(problem, key))

    def go_on(
        self,
        logits_fn: LogitsFn,
        number: Array,
        state: CRState,
        key: Array,
        images: Array,
        labels: Array,
    ) -> CRState:
        """The state after the next period of each example."""
        problem = self._problem(logits_fn, images, labels)
        return cr_period(problem, state, *drawn(problem, state, key))

    def done(self, state: CRState) -> Array:
        """`[b]` bool: misclassified, or nothing is left to try."""
        return cr_done(self._plan, state)

    def end(self, state: CRState, images: Array) -> Attacked:
        """The result, and the passes that it took."""
        return cr_end(images, state)

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most."""
        plan = self._plan
        attempts = min(self.targets, classes - 1) * self.restarts
        whole, rest = divmod(plan.steps, plan.period)
        within = min(plan.relaxed + 1, plan.period)
        looks = plan.steps + whole * within + min(rest, within)
        return 2 + plan.relaxed + attempts * looks, plan.relaxed + attempts * plan.steps

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"loss": "margin_targeted", **self._counts}

    @property
    def _counts(self) -> dict[str, int]:
        names = ("steps", "period", "targets", "restarts")
        return {name: getattr(self, name) for name in names}

    @property
    def _plan(self) -> Plan:
        return Plan(**self._counts)

    def _problem(self, logits_fn: LogitsFn, images: Array, labels: Array) -> Problem:
        images, labels = as_batch(images, labels)
        return problem_of(logits_fn, images, labels, eps=self.threat.eps, plan=self._plan)
