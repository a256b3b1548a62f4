"""Gradient attacks with their settings bound, as pytrees: a new radius does not recompile."""

import functools
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._apgd import apgd
from jaxrobust.attacks._attack import check_ball
from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._fab import fab
from jaxrobust.attacks._fgsm import check_one, fgsm, whole_step
from jaxrobust.attacks._min_margin import min_margin
from jaxrobust.attacks._pgd import better_of, pgd
from jaxrobust.inputs import as_count
from jaxrobust.losses import cross_entropy
from jaxrobust.threats import Union, default_step, norm_of
from jaxrobust.typing import LogitsFn, Loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PGD:
    """`attacks.pgd` with its settings bound; the worst iterate of all restarts is kept.

    For a union, every member is attacked in turn, and the worst result is kept.

    Args:
      threat: the set to stay in.
      steps: number of steps.
      step_size: in the threat's units; default `threats.default_step`, 2.5 eps / steps for norms.
      restarts: random starts.
      loss: maximised.

    Raises:
      ValueError: if a number of steps or restarts is out of range, or no step size is given and the
        threat has no default.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.PGD(threat=threats.linf(0.1)).steps
      20
    """

    threat: Any
    step_size: ArrayLike | None = None
    steps: int = field(default=20, metadata={"static": True})
    restarts: int = field(default=1, metadata={"static": True})
    loss: Loss = field(default=cross_entropy, metadata={"static": True})

    def __post_init__(self) -> None:
        as_count(self.steps, name="steps", least=0)
        as_count(self.restarts, name="restarts")
        if self.step_size is None and hasattr(self.threat, "project"):
            default_step(self.threat, self.steps)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        if isinstance(self.threat, Union):
            return self._worst_of(self.threat, logits_fn, key, images, labels)
        step_size = self.step_size
        if step_size is None:
            step_size = default_step(self.threat, self.steps)
        options: dict[str, Any] = {"steps": self.steps, "restarts": self.restarts, "keep": "best"}
        return pgd(
            logits_fn, key, images, labels,
            threat=self.threat, loss=self.loss, step_size=step_size, **options,
        )  # fmt: skip

    def _worst_of(self, union: Union, *given: Any) -> Attacked:
        """The worst result over the members, without perturbation, whose kind may differ."""
        members, sizes = union.threats, self.step_size
        each = sizes if isinstance(sizes, tuple) else (sizes,) * len(members)
        bound = [replace(self, threat=m, step_size=s) for m, s in zip(members, each, strict=True)]
        found = [attack(*given)._replace(perturbation=None) for attack in bound]
        return functools.reduce(better_of, found)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FGSM:
    """`attacks.fgsm` with its settings bound.

    Args:
      threat: the set to stay in.
      step_size: in the threat's units; default: across the whole set.
      loss: maximised.

    Raises:
      ValueError: if no step size is given and the threat has no default, or the threat is a union.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> float(attacks.FGSM(threat=threats.l2(0.5)).threat.eps)
      0.5
    """

    threat: Any
    step_size: ArrayLike | None = None
    loss: Loss = field(default=cross_entropy, metadata={"static": True})

    def __post_init__(self) -> None:
        check_one(self.threat)
        if self.step_size is None and hasattr(self.threat, "project"):
            whole_step(self.threat)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        options: dict[str, Any] = {"loss": self.loss, "step_size": self.step_size}
        return fgsm(logits_fn, key, images, labels, threat=self.threat, **options)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class APGD:
    """`attacks.apgd` with its settings bound.

    Args:
      threat: the ball of a norm.
      loss: maximised; "dlr_targeted" and "margin_targeted" take targets.
      steps: iterations.
      restarts: independent runs.
      eot: passes of the model per iteration.
      stochastic: whether the model draws noise from keys that it receives.
      eps_schedule: three radii, one after the other; l_1 only.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.APGD(threat=threats.linf(0.1), loss="dlr").passes(10, targeted=False)
      (101, 101)
    """

    threat: Any
    loss: Any = field(default="ce", metadata={"static": True})
    steps: int = field(default=100, metadata={"static": True})
    restarts: int = field(default=1, metadata={"static": True})
    eot: int = field(default=1, metadata={"static": True})
    stochastic: bool = field(default=False, metadata={"static": True})
    eps_schedule: bool = field(default=False, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ball(self)
        as_count(self.steps, name="steps", least=0)
        as_count(self.restarts, name="restarts")
        as_count(self.eot, name="eot")

    def __call__(
        self,
        logits_fn: Any,
        key: Array,
        images: Array,
        labels: Array,
        targets: Array | None = None,
    ) -> Attacked:
        """Attacks a batch, towards the target classes `[b]` of a targeted loss."""
        options: dict[str, Any] = {"steps": self.steps, "restarts": self.restarts, "eot": self.eot}
        options |= {"stochastic": self.stochastic, "eps_schedule": self.eps_schedule}
        ball: dict[str, Any] = {"norm": norm_of(self.threat), "eps": self.threat.eps}
        return apgd(
            logits_fn, key, images, labels, loss=self.loss, targets=targets, **ball, **options
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        words: dict[str, Any] = {"loss": str(getattr(self.loss, "__name__", self.loss))}
        words |= {"steps": self.steps, "restarts": self.restarts, "eot": self.eot}
        return words | {"eps_schedule": self.eps_schedule, "stochastic": self.stochastic}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        each = (self.steps + 1) * self.restarts * self.eot
        return each, each


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FAB:
    """`attacks.fab` with its settings bound; with targets, it is FAB-T.

    Args:
      threat: the ball of a norm; its radius decides what counts as success.
      steps: number of steps.
      restarts: runs; later ones start from noise around the image.
      eta: overshoot of the projections.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.FAB(threat=threats.l2(0.5)).passes(10, targeted=False)
      (201, 900)
    """

    threat: Any
    steps: int = field(default=100, metadata={"static": True})
    restarts: int = field(default=1, metadata={"static": True})
    eta: ArrayLike = 1.05
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self)
        as_count(self.steps, name="steps")
        as_count(self.restarts, name="restarts")

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Array,
        images: Array,
        labels: Array,
        targets: Array | None = None,
    ) -> Attacked:
        """Attacks a batch: the nearest boundaries, or those to the target classes `[b]`."""
        ball: dict[str, Any] = {"norm": norm_of(self.threat), "eps": self.threat.eps}
        options: dict[str, Any] = {"steps": self.steps, "restarts": self.restarts, "eta": self.eta}
        return fab(logits_fn, key, images, labels, targets=targets, **ball, **options)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps, "restarts": self.restarts}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        steps = self.steps * self.restarts
        return 2 * steps + 1, (1 if targeted else classes - 1) * steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MinMargin:
    """`attacks.min_margin` with its settings bound.

    Args:
      threat: the ball of a norm.
      steps: iterations of each run.
      targets: target classes, the most likely wrong ones first.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.MinMargin(threat=threats.linf(0.1)).targets
      9
    """

    threat: Any
    steps: int = field(default=100, metadata={"static": True})
    targets: int = field(default=9, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ball(self)
        as_count(self.steps, name="steps", least=0)
        as_count(self.targets, name="targets", least=0)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        ball: dict[str, Any] = {"norm": norm_of(self.threat), "eps": self.threat.eps}
        options: dict[str, Any] = {"steps": self.steps, "targets": self.targets}
        return min_margin(logits_fn, key, images, labels, **ball, **options)
