"""SCORE without extra data: adversarial training with any distance in place of its loss."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust import losses
from jaxrobust.inputs import InputError, as_number
from jaxrobust.losses import clip_bound, label_distance
from jaxrobust.objectives._attack import inner_pgd
from jaxrobust.objectives._objective import (
    AttackStatistics,
    Batch,
    Pass,
    Stateful,
    Statistics,
    Views,
    correct,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.objectives._trades import away_from
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DistancePGDAT:
    r"""PGD training with a distance to the label in place of the cross-entropy.

    .. math:: \ell = \max(D(p(x'), t) - b, 0), \quad x' = \arg\max D(p(x'), y)

    where `b` is the distance of a prediction that misses `clip_loss` (`losses.clip_bound`).
    As published, the network stays in training mode during the attack, whose every step updates
    BatchNorm's running statistics ("update").

    Cost: `2 * steps + 3` forward units per image.

    Args:
      distance: as in `losses.distance`; not `rkl` or `sqrt_rkl`, which are infinite.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "update" as published, "batch" or "running".
      label_smoothing: of the outer loss, as in `losses.score`.
      clip_loss: probability in [0, 1) that a prediction may miss.

    Raises:
      ValueError: for an unknown or infinite distance.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.distance_pgd_at(distance="squared_error", clip_loss=0.4).passes
      (Pass(name='adv', view='adv'),)

    References:
      Pang et al., 2022 (arXiv:2202.10103), the tables without extra data.
    """

    distance: str = field(default="squared_error", metadata={"static": True})
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: AttackStatistics = field(default="update", metadata={"static": True})
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    clip_loss: float = field(default=0.0, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=("running", "batch", "update"))
        check_distance(self.distance, self.label_smoothing)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def inner(
        self, logits_fn: LogitsFn | Stateful, key: Array, batch: Batch, threat: Threat
    ) -> Views:
        """PGD on the distance to the label."""
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=label_distance(self.distance),
            steps=self.steps,
            step_size=self.step_size,
            start="uniform",
        )
        return Views({"adv": attacked.images}, {}, batch_stats=attacked.state)

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The clipped distance between adversarial output and label."""
        adv = logits["adv"]
        error = label_distance(self.distance)(
            adv, batch.labels, label_smoothing=self.label_smoothing
        )
        loss = jax.nn.relu(error - bound(self.distance, self.clip_loss, adv).astype(error.dtype))
        return loss, {"robust_accuracy": correct(adv, batch.labels)}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class DistanceTrades:
    r"""TRADES with a distance in place of its cross-entropy and divergence.

    .. math:: \ell = \max(D(p(x), t) + \beta D(p(x'), p(x)) - b, 0)

    The published script cannot train `sqrt_js`, `sqrt_kl`, `l1`, `l2` and `linf` in this mode (it
    overwrites a value that differentiation needs); here all distances train.

    Cost: `2 * steps + 7` forward units per image.

    Args:
      distance: as in `losses.distance`; not `rkl` or `sqrt_rkl`, which are infinite.
      beta: the trade-off; 6 in the paper. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".
      label_smoothing: as in `losses.score`.
      clip_loss: probability in [0, 1) that a prediction may miss; sets `b`.
      clip_clean: subtract `b` from the whole loss; otherwise from the robust distance alone.

    Raises:
      ValueError: for an unknown or infinite distance.

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.distance_trades(distance="js").passes]
      ['adv', 'clean']

    References:
      Pang et al., 2022 (arXiv:2202.10103), the tables without extra data.
    """

    distance: str = field(default="squared_error", metadata={"static": True})
    beta: ArrayLike = 6.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    clip_loss: float = field(default=0.0, metadata={"static": True})
    clip_clean: bool = field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)
        check_distance(self.distance, self.label_smoothing)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"), Pass("clean", "clean"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the distance to the clean output, from Gaussian noise in the box."""
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=away_from("clean", self.distance, logits_fn, batch),
            steps=self.steps,
            step_size=self.step_size,
            start="gaussian_in_box",
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The clipped sum of natural and robust distance."""
        clean, adv = logits["clean"], logits["adv"]
        natural = label_distance(self.distance)(
            clean, batch.labels, label_smoothing=self.label_smoothing
        )
        robust = losses.distance(self.distance)(clean, adv)
        as_number(self.beta, name="beta", lead=natural.shape)
        beta = jnp.asarray(self.beta, natural.dtype)
        b = bound(self.distance, self.clip_loss, clean).astype(natural.dtype)
        if self.clip_clean:
            loss = jax.nn.relu(natural + beta * robust - b)
        else:
            loss = natural + beta * jax.nn.relu(robust - b)
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "natural_loss": natural,
            "boundary_loss": robust,
        }
        return loss, metrics


def bound(name: str, clip_loss: float, logits: Array) -> Array:
    """`losses.clip_bound` for the number of classes of some logits."""
    return clip_bound(name, clip_loss, logits.shape[-1])


def check_distance(name: str, label_smoothing: float) -> None:
    """Refuses distances that do not exist or are infinite against a label."""
    if not isinstance(name, str):
        raise InputError(f"distance must be a name, got {name!r}")
    losses.distance(name)  # names the choices
    if name in ("rkl", "sqrt_rkl") and not label_smoothing:
        raise InputError(
            f"distance {name!r} is infinite against a one-hot label: set label_smoothing above 0, "
            "or choose 'kl', 'js' or another distance"
        )
