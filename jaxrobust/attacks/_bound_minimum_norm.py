"""Minimum-norm attacks with their settings bound, as pytrees: a new radius does not recompile."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attack import check_ball
from jaxrobust.attacks._attacked import Attacked, where
from jaxrobust.attacks._ddn import ddn
from jaxrobust.attacks._deepfool import NORMS as DEEPFOOL_NORMS
from jaxrobust.attacks._deepfool import deepfool
from jaxrobust.attacks._fmn import fmn
from jaxrobust.attacks._pdpgd import pdpgd
from jaxrobust.attacks._sigma_zero import sigma_zero
from jaxrobust.attacks._superdeepfool import superdeepfool
from jaxrobust.inputs import as_count
from jaxrobust.threats import norm_of
from jaxrobust.typing import ANY_NORMS, LogitsFn


def _within(threat: Any, images: Array, found: Attacked) -> Attacked:
    """Success only within the threat's radius; the distance and the perturbation are unchanged."""
    distance = jnp.asarray(found.distance)
    success = distance <= jnp.asarray(threat.eps).astype(distance.dtype)
    kept = where(success, found.images, jnp.asarray(images).astype(found.images.dtype))
    return found._replace(images=kept, success=success)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FMN:
    """`attacks.fmn` with its settings bound, and with `escape` as the default.

    The function's default is the published algorithm, for comparisons with published numbers. This
    class serves ensembles and the command line, where a stalled run would wrongly count an image as
    robust.

    Args:
      threat: the ball of a norm, or `threats.l0`; its radius decides what counts as success.
      steps: number of steps.
      step_size: Euclidean length of the first step, in image units.
      final_step_size: length of the last step; default `step_size / 100`.
      gamma: initial relative change of the radius per step.
      final_gamma: relative change of the radius in the last step.
      escape: keep the radius from falling before the first success. Without effect for l_0, whose
        radius is never estimated.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.FMN(threat=threats.l2(0.5)).escape
      True
    """

    threat: Any
    step_size: ArrayLike = 1.0
    final_step_size: ArrayLike | None = None
    gamma: ArrayLike = 0.05
    final_gamma: ArrayLike = 0.001
    steps: int = field(default=1000, metadata={"static": True})
    escape: bool = field(default=True, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, ANY_NORMS)
        as_count(self.steps, name="steps")

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Array,
        images: Array,
        labels: Array,
        targets: Array | None = None,
    ) -> Attacked:
        """Attacks a batch, towards the target classes `[b]` if there are any."""
        norm: Any = norm_of(self.threat)
        numbers: dict[str, Any] = {"step_size": self.step_size, "gamma": self.gamma}
        numbers |= {"final_step_size": self.final_step_size, "final_gamma": self.final_gamma}
        found = fmn(
            logits_fn, key, images, labels, norm=norm, steps=self.steps, targets=targets,
            escape=self.escape and norm != "l0", **numbers,
        )  # fmt: skip
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps, "escape": self.escape}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        return self.steps, self.steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DDN:
    """`attacks.ddn` with its settings bound.

    Args:
      threat: `threats.l2`; its radius decides what counts as success.
      steps: number of steps.
      gamma: relative change of the radius per step.
      init_norm: radius of the first sphere.
      levels: round images to this many values; default: no rounding.

    Raises:
      ValueError: if the threat is not the l_2 ball, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.DDN(threat=threats.l2(0.5), steps=100).passes(10, targeted=False)
      (100, 100)
    """

    threat: Any
    gamma: ArrayLike = 0.05
    init_norm: ArrayLike = 1.0
    steps: int = field(default=1000, metadata={"static": True})
    levels: int | None = field(default=None, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, ("l2",))
        as_count(self.steps, name="steps")
        if self.levels is not None:
            as_count(self.levels, name="levels", least=2)

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Array,
        images: Array,
        labels: Array,
        targets: Array | None = None,
    ) -> Attacked:
        """Attacks a batch, towards the target classes `[b]` if there are any."""
        found = ddn(
            logits_fn, key, images, labels, steps=self.steps, gamma=self.gamma,
            init_norm=self.init_norm, levels=self.levels, targets=targets,
        )  # fmt: skip
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps, "levels": self.levels}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        return self.steps, self.steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PDPGD:
    """`attacks.pdpgd` with its settings bound.

    Args:
      threat: the ball of a norm, or `threats.l0`; its radius decides what counts as success.
      steps: number of steps.
      primal_lr: Adam's initial learning rate.
      primal_lr_decrease: factor of Adam's learning rate after the last step.
      dual_ratio_init: initial ratio of the norm's weight to the margin's weight.
      dual_lr: initial step size of the dual variable.
      dual_lr_decrease: factor of the dual variable's step size in the last step.
      dual_ema: decay of the running mean of the weights.
      dual_min_ratio: lower bound of the ratio of the weights, in both directions.
      proximal_steps: largest number of iterations of the proximal operator.
      proximal_tolerance: relative change at which the proximal iterations stop.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.PDPGD(threat=threats.linf(0.1)).passes(10, targeted=False)
      (500, 500)
    """

    threat: Any
    primal_lr: ArrayLike = 0.1
    primal_lr_decrease: ArrayLike = 0.01
    dual_ratio_init: ArrayLike = 0.01
    dual_lr: ArrayLike = 0.1
    dual_lr_decrease: ArrayLike = 0.1
    dual_ema: ArrayLike = 0.9
    dual_min_ratio: ArrayLike = 1e-6
    proximal_tolerance: ArrayLike = 0.01
    steps: int = field(default=500, metadata={"static": True})
    proximal_steps: int = field(default=5, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, ANY_NORMS)
        as_count(self.steps, name="steps", least=2)
        as_count(self.proximal_steps, name="proximal_steps")

    def __call__(
        self,
        logits_fn: LogitsFn,
        key: Array,
        images: Array,
        labels: Array,
        targets: Array | None = None,
    ) -> Attacked:
        """Attacks a batch, towards the target classes `[b]` if there are any."""
        norm: Any = norm_of(self.threat)
        found = pdpgd(
            logits_fn, key, images, labels, norm=norm, steps=self.steps, targets=targets,
            primal_lr=self.primal_lr, primal_lr_decrease=self.primal_lr_decrease,
            dual_ratio_init=self.dual_ratio_init, dual_lr=self.dual_lr,
            dual_lr_decrease=self.dual_lr_decrease, dual_ema=self.dual_ema,
            dual_min_ratio=self.dual_min_ratio, proximal_steps=self.proximal_steps,
            proximal_tolerance=self.proximal_tolerance,
        )  # fmt: skip
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        return self.steps, self.steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SigmaZero:
    """`attacks.sigma_zero` with its settings bound.

    Args:
      threat: `threats.l0`; its number of values decides what counts as success.
      steps: number of steps.
      step_size: Adam's initial learning rate.
      sigma: squared change at which a value counts as half changed.
      threshold: initial absolute value below which changes are undone.
      threshold_rate: change of the threshold per step, in units of the current learning rate.

    Raises:
      ValueError: if the threat is not `threats.l0`, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.SigmaZero(threat=threats.l0(10)).passes(10, targeted=False)
      (1000, 1000)
    """

    threat: Any
    step_size: ArrayLike = 1.0
    sigma: ArrayLike = 1e-3
    threshold: ArrayLike = 0.3
    threshold_rate: ArrayLike = 0.01
    steps: int = field(default=1000, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, ("l0",))
        as_count(self.steps, name="steps")

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        found = sigma_zero(
            logits_fn, key, images, labels, steps=self.steps, step_size=self.step_size,
            sigma=self.sigma, threshold=self.threshold, threshold_rate=self.threshold_rate,
        )  # fmt: skip
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example."""
        return self.steps, self.steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DeepFool:
    """`attacks.deepfool` with its settings bound.

    Args:
      threat: the ball of l_2 or l_inf; its radius decides what counts as success.
      steps: number of points that are evaluated.
      overshoot: relative length by which a step goes beyond the boundary.

    Raises:
      ValueError: if the threat is neither ball, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.DeepFool(threat=threats.linf(0.1)).passes(10, targeted=False)
      (100, 900)
    """

    threat: Any
    overshoot: ArrayLike = 0.02
    steps: int = field(default=100, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, DEEPFOOL_NORMS)
        as_count(self.steps, name="steps")

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        norm: Any = norm_of(self.threat)
        options: dict[str, Any] = {"steps": self.steps, "overshoot": self.overshoot}
        found = deepfool(logits_fn, key, images, labels, norm=norm, **options)
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most."""
        return self.steps, (classes - 1) * self.steps


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SuperDeepFool:
    """`attacks.superdeepfool` with its settings bound.

    Args:
      threat: `threats.l2`; its radius decides what counts as success.
      steps: largest number of outer steps.
      deepfool_steps: number of steps of each DeepFool run.
      overshoot: overshoot of DeepFool's steps.
      search_steps: number of bisections.

    Raises:
      ValueError: if the threat is not the l_2 ball, or a count is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> bound = attacks.SuperDeepFool(threat=threats.l2(0.5), steps=3, deepfool_steps=10)
      >>> bound.passes(10, targeted=False)
      (46, 273)
    """

    threat: Any
    overshoot: ArrayLike = 0.02
    steps: int = field(default=100, metadata={"static": True})
    deepfool_steps: int = field(default=100, metadata={"static": True})
    search_steps: int = field(default=10, metadata={"static": True})
    distances: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_ball(self, ("l2",))
        as_count(self.steps, name="steps")
        as_count(self.deepfool_steps, name="deepfool_steps")
        as_count(self.search_steps, name="search_steps", least=0)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch."""
        found = superdeepfool(
            logits_fn, key, images, labels, steps=self.steps, deepfool_steps=self.deepfool_steps,
            overshoot=self.overshoot, search_steps=self.search_steps,
        )  # fmt: skip
        return _within(self.threat, images, found)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"steps": self.steps, "deepfool_steps": self.deepfool_steps}

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most; two or three outer steps are usual."""
        forwards = self.steps * (self.deepfool_steps + 2) + self.search_steps
        return forwards, self.steps * (self.deepfool_steps * (classes - 1) + 1)
