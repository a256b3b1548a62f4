"""TRADES."""

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_batch, as_number
from jaxrobust.losses import cross_entropy, distance, kl_divergence, label_distance
from jaxrobust.objectives._attack import Start, clean_output, inner_pgd
from jaxrobust.objectives._objective import Batch, Pass, Statistics, Views, correct
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn, Loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Trades:
    r"""TRADES: cross-entropy on clean images plus `beta` times the boundary error's surrogate.

    .. math:: \min_\theta \mathbb{E}\, \mathrm{CE}(f(x), y)
              + \beta \max_{x' \in B(x)} \mathrm{KL}(p(x) \,\|\, p(x'))

    The attack maximises the divergence from the clean output, starting at Gaussian noise of
    standard deviation 0.001 that is neither clipped nor projected before the first gradient.
    The clean output is computed once, not at every step: it is constant.

    The authors' code runs three forward passes in training mode: clean for the cross-entropy,
    adversarial, and clean once more for the divergence. Loss and gradients are those of two
    passes (unless dropout draws another mask); BatchNorm's running statistics are not, since
    they are updated in the order clean, adversarial, clean.

    The KL baseline of SCORE's code is `trades(label_smoothing=0.1, start="uniform",
    attack_statistics="batch")`, with `attack_target="label"` where CutMix makes soft labels.

    Cost: `2 * steps + 3 * clean_passes + 4` forward units per image, 27 by default.

    Args:
      beta: the trade-off, 1/lambda of the paper. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".
      clean_passes: 2 for the authors' three forward passes, 1 for the efficient form.
      label_smoothing: of the cross-entropy, as in `losses.cross_entropy`; soft labels are taken
        as they are.
      start: where the attack begins: "gaussian" as published, or "uniform" in the threat.
      attack_target: what the attack moves away from: the "clean" output, or the "label".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.trades(beta=6.0, clean_passes=2).passes]
      ['clean', 'adv', 'clean_again']

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Eq. 5 and Algorithm 1.
    """

    beta: ArrayLike = 6.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})
    clean_passes: Literal[1, 2] = field(default=1, metadata={"static": True})
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    start: Start = field(default="gaussian", metadata={"static": True})
    attack_target: Literal["clean", "label"] = field(default="clean", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        twice = (Pass("clean", "clean"), Pass("adv", "adv"))
        return (*twice, Pass("clean_again", "clean")) if self.clean_passes == 2 else twice

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on KL(p(x) || p(x'))."""
        loss = away_from(self.attack_target, "kl", logits_fn, batch)
        attacked = inner_pgd(
            logits_fn,
            key,
            batch,
            threat,
            loss=loss,
            steps=self.steps,
            step_size=self.step_size,
            start=self.start,
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.trades`, with the divergence's clean logits of their own pass if there is one."""
        clean, adv = logits["clean"], logits["adv"]
        if batch.labels.ndim == 2:  # soft: less their entropy, a constant, as published
            natural = label_distance("kl")(clean, batch.labels)
        else:
            natural = cross_entropy(clean, batch.labels, label_smoothing=self.label_smoothing)
        boundary = kl_divergence(logits.get("clean_again", clean), adv)
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "natural_loss": natural,
            "boundary_loss": boundary,
        }
        as_number(self.beta, name="beta", lead=natural.shape)
        return natural + jnp.asarray(self.beta, natural.dtype) * boundary, metrics


def away_from(target: str, name: str, logits_fn: LogitsFn, batch: Batch) -> Loss:
    """The attack's loss: a distance from the clean output, computed once, or from the label."""
    as_batch(*batch)
    if target == "label":
        return label_distance(name)
    if target != "clean":
        raise InputError(f"attack_target must be 'clean' or 'label', got {target!r}")
    clean = clean_output(logits_fn, batch.images)
    return lambda logits, labels: distance(name)(clean, logits)
