"""Training without an attack."""

from dataclasses import dataclass, field

import jax
from jax import Array

from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._objective import Batch, Pass, Statistics, Views, correct
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Standard:
    """Cross-entropy on clean images: the accurate end of the trade-off.

    Cost: 3 forward units per image.

    Args:
      label_smoothing: as in `losses.cross_entropy`.

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.standard().passes
      (Pass(name='clean', view='clean'),)
    """

    label_smoothing: float = field(default=0.0, metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def attack_statistics(self) -> Statistics:
        return "running"

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"),)

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """No attack."""
        return Views({}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the clean images."""
        loss = cross_entropy(logits["clean"], batch.labels, label_smoothing=self.label_smoothing)
        return loss, {"accuracy": correct(logits["clean"], batch.labels)}
