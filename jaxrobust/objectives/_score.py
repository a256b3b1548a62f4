"""SCORE with extra data: squared errors in both places of TRADES."""

from dataclasses import dataclass, field
from typing import Literal

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.losses import score, squared_error
from jaxrobust.objectives._attack import Start, inner_pgd
from jaxrobust.objectives._objective import Batch, Pass, Statistics, Views, correct
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.objectives._trades import away_from
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Score:
    r"""SCORE: squared error on probabilities, clean and adversarial.

    .. math:: \min_\theta \mathbb{E}\, \|p(x) - t\|_2^2
              + \beta \max_{x' \in B(x)} \|p(x') - p(x)\|_2^2

    The attack starts at a uniform point of the threat, cut to the box, and runs on the batch
    statistics of the images it attacks, without moving the running ones. With CutMix's soft
    labels it maximises the distance from the label instead (`attack_target="label"`).

    The published code for the l_2 norm starts at Gaussian noise: `start="gaussian"`.

    Cost: `2 * steps + 7` forward units per image.

    Args:
      beta: the trade-off; 3 and 4 in the published tables. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps (the paper: 2/255). May be traced.
      attack_statistics: BatchNorm in the attack: "batch" as published, or "running".
      label_smoothing: as in `losses.score`.
      clip: robust errors below it are not reduced, as in `losses.score`. May be traced.
      start: "uniform" or "gaussian".
      attack_target: what the attack moves away from: the "clean" output, or the "label".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.score(beta=4.0).attack_statistics
      'batch'

    References:
      Pang et al., 2022 (arXiv:2202.10103), Section 5.
    """

    beta: ArrayLike = 4.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="batch", metadata={"static": True})
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    clip: ArrayLike = 0.0
    start: Start = field(default="uniform", metadata={"static": True})
    attack_target: Literal["clean", "label"] = field(default="clean", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on the squared error between p(x') and p(x)."""
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=away_from(self.attack_target, "squared_error", logits_fn, batch),
            steps=self.steps,
            step_size=self.step_size,
            start=self.start,
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.score`."""
        clean, adv = logits["clean"], logits["adv"]
        options = {"label_smoothing": self.label_smoothing, "clip": self.clip}
        loss = score(clean, adv, batch.labels, beta=self.beta, **options)  # type: ignore[arg-type]
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "boundary_loss": squared_error(clean, adv),
        }
        return loss, metrics
