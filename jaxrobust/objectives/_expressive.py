"""Certified training between bounds and attacks: SABR, MTL-IBP, EXP-IBP and CC-IBP."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import cc_ibp, certified, exp_ibp, mtl_ibp
from jaxrobust.objectives._box_attack import box_of, worst_of_box
from jaxrobust.objectives._gradient import over_images
from jaxrobust.objectives._ibp import certified_share, clean_and_robust, mixed
from jaxrobust.objectives._objective import (
    Batch,
    Bound,
    Pass,
    Statistics,
    Views,
    hard_batch,
)
from jaxrobust.objectives._ranges import SHARE, check_ranges
from jaxrobust.precision import shown
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Sabr:
    """SABR: interval bounds over a small box around an adversarial image.

    The small box has `shrink` times the half-width of the ball, also where [0, 1] cuts the ball,
    and lies in it. Its loss is no bound over the ball, but easier to minimise than one. BatchNorm
    is treated as in `ibp`.

    Cost: `restarts * (2 * steps + 1) + 9 + 6 * (classes - 1) * head` forward units per image, with
    `head` as in `ibp`.

    Args:
      shrink: of the half-width, in (0, 1]. May be traced.
      kappa: weight of the loss beside the clean cross-entropy, in [0, 1]. May be traced.
      steps: of each run of the attack.
      restarts: runs of the attack.
      relative_step: step of the attack in half-widths of the ball. May be traced.
      attack_statistics: BatchNorm in the attack: "running", or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.sabr(shrink=0.1).steps
      8

    References:
      Müller et al., Certified Training: Small Boxes are All You Need, 2023 (arXiv:2210.04871).
    """

    shrink: ArrayLike = 0.4
    kappa: ArrayLike = 1.0
    steps: int = field(default=8, metadata={"static": True})
    restarts: int = field(default=3, metadata={"static": True})
    relative_step: ArrayLike | None = 0.2
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    bound: ClassVar[Bound] = Bound()

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """The small boxes around the attack's images."""
        batch = hard_batch("certified training", batch)
        ball = box_of(threat, batch.images)
        options = {"steps": self.steps, "restarts": self.restarts}
        x = worst_of_box(
            logits_fn, key, batch, ball, relative_step=self.relative_step, **options
        )  # fmt: skip
        radius = (
            over_images(self.shrink, x, "shrink").astype(x.dtype) * (ball.upper - ball.lower) / 2
        )
        centre = jnp.clip(x, ball.lower + radius, ball.upper - radius)
        return Views({"lower": centre - radius, "upper": centre + radius}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The loss of the small boxes."""
        loss = certified(logits["margins"])
        metrics = {"small_box_accuracy": certified_share(logits["margins"])}
        return mixed(loss, logits["clean"], batch, self.kappa), metrics


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class MtlIBP:
    """MTL-IBP: a sum of the certified and the adversarial loss (`losses.mtl_ibp`).

    BatchNorm is treated as in `ibp`.

    Cost: `restarts * (2 * steps + 1) + 12 + 6 * (classes - 1) * head` forward units per image, with
    `head` as in `ibp`.

    Args:
      alpha: weight of the certified loss, in [0, 1]. May be traced.
      kappa: weight of both beside the clean cross-entropy, in [0, 1]. May be traced.
      attack_scale: the attack's radius in radii of the threat; the bound's is 1. May be traced.
      steps: of each run of the attack.
      restarts: runs of the attack.
      relative_step: step of the attack in half-widths of its ball; default max(1/4, 2 / steps).
        May be traced.
      attack_statistics: BatchNorm in the attack: "running", or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.mtl_ibp(alpha=0.01, attack_scale=2.0).passes]
      ['clean', 'adv']

    References:
      De Palma et al., Expressive Losses for Verified Robustness via Convex Combinations, 2024
      (arXiv:2305.13991).
    """

    alpha: ArrayLike = field(default=0.5, metadata=SHARE)
    kappa: ArrayLike = 1.0
    attack_scale: ArrayLike = 1.0
    steps: int = field(default=8, metadata={"static": True})
    restarts: int = field(default=3, metadata={"static": True})
    relative_step: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    bound: ClassVar[Bound] = Bound()
    loss: ClassVar[Callable[..., Array]] = staticmethod(mtl_ibp)

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """The attack's images, and the ends of the ball."""
        batch = hard_batch("certified training", batch)
        attacked = box_of(threat, batch.images, self.attack_scale)
        options = {"steps": self.steps, "restarts": self.restarts}
        x = worst_of_box(
            logits_fn, key, batch, attacked, relative_step=self.relative_step, **options
        )  # fmt: skip
        x = shown(x, batch.images)
        return Views({"adv": x, **box_of(threat, batch.images)._asdict()}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The two losses together."""
        loss = self.loss(logits["margins"], logits["adv"], batch.labels, alpha=self.alpha)
        return mixed(loss, logits["clean"], batch, self.kappa), clean_and_robust(logits, batch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class ExpIBP(MtlIBP):
    """EXP-IBP: a geometric mean of the certified and the adversarial loss (`losses.exp_ibp`).

    Cost: `restarts * (2 * steps + 1) + 12 + 6 * (classes - 1) * head` forward units per image, as
    `mtl_ibp`.

    Args:
      alpha: as in `mtl_ibp`.
      kappa: as in `mtl_ibp`.
      attack_scale: as in `mtl_ibp`.
      steps: as in `mtl_ibp`.
      restarts: as in `mtl_ibp`.
      relative_step: as in `mtl_ibp`.
      attack_statistics: as in `mtl_ibp`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.exp_ibp(alpha=0.1).bound.name
      'margins'

    References:
      De Palma et al., 2024 (arXiv:2305.13991).
    """

    loss: ClassVar[Callable[..., Array]] = staticmethod(exp_ibp)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class CcIBP(MtlIBP):
    """CC-IBP: the certified loss of a mean of bounds and attained margins (`losses.cc_ibp`).

    Cost: `restarts * (2 * steps + 1) + 12 + 6 * (classes - 1) * head` forward units per image, as
    `mtl_ibp`.

    Args:
      alpha: as in `mtl_ibp`.
      kappa: as in `mtl_ibp`.
      attack_scale: as in `mtl_ibp`.
      steps: as in `mtl_ibp`.
      restarts: as in `mtl_ibp`.
      relative_step: as in `mtl_ibp`.
      attack_statistics: as in `mtl_ibp`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.cc_ibp(alpha=0.1).bound.name
      'margins'

    References:
      De Palma et al., 2024 (arXiv:2305.13991).
    """

    loss: ClassVar[Callable[..., Array]] = staticmethod(cc_ibp)
