"""GAIR-TRADES."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import gair_trades, kl_divergence, margin
from jaxrobust.objectives._attack import clean_output, inner_pgd
from jaxrobust.objectives._objective import (
    Batch,
    Pass,
    Statistics,
    Views,
    correct,
    hard_batch,
)
from jaxrobust.objectives._ranges import SHIFT, check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GairTrades:
    """GAIR-TRADES: TRADES on two adversarial images, mixed by the geometry of each example.

    One attack maximises the divergence and counts kappa, the other maximises the margin. Three
    forward passes in training mode, in the published order: adversarial, margin, clean. With
    `lam` above 10 the weight of the second image is 0 and this is TRADES (at the cost of both
    attacks: train the first half with `trades` to save it). Labels of -1 mark unlabelled examples,
    which the cross-entropy leaves out; their margin attack goes for the top class.

    Cost: `4 * steps + 10` forward units per image: there are two attacks.

    Args:
      beta: the trade-off. May be traced.
      lam: shift of the mixing weight; the authors use 100 until epoch 100 of 200, then 3. May be
        traced.
      steps: attack steps of each attack.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attacks: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.gair_trades(lam=3.0).passes]
      ['adv', 'adv_margin', 'clean']

    References:
      Zhang et al., 2021 (arXiv:2010.01736), GAIR-TRADES.
    """

    beta: ArrayLike = 6.0
    lam: ArrayLike = field(default=3.0, metadata=SHIFT)
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"), Pass("adv_margin", "adv_margin"), Pass("clean", "clean"))

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """Two attacks from Gaussian noise: on the divergence and on the margin."""
        batch = hard_batch("gair_trades", batch, unlabelled=True)
        clean = clean_output(logits_fn, batch.images)
        unknown = batch.labels < 0
        labels = jnp.where(unknown, jnp.argmax(clean, -1).astype(batch.labels.dtype), batch.labels)
        keys = per_example_keys(key, len(batch.images))
        attack = partial(
            inner_pgd,
            logits_fn,
            batch=batch._replace(labels=labels),
            threat=threat,
            steps=self.steps,
            step_size=self.step_size,
            start="gaussian",
        )
        attacked = attack(key=keys, loss=lambda logits, labels: kl_divergence(clean, logits))
        by_margin = attack(key=fold_keys(keys, 1), loss=bounded_margin)
        assert attacked.kappa is not None
        images = {"adv": attacked.images, "adv_margin": by_margin.images}
        return Views(images, {"kappa": jnp.where(unknown, 0, attacked.kappa)})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.gair_trades`."""
        loss = gair_trades(
            logits["clean"],
            logits["adv"],
            logits["adv_margin"],
            batch.labels,
            extras["kappa"],
            beta=self.beta,
            num_steps=self.steps,
            lam=self.lam,
        )
        metrics = {
            "accuracy": correct(logits["clean"], batch.labels),
            "robust_accuracy": correct(logits["adv"], batch.labels),
            "kappa": extras["kappa"].astype(loss.dtype),
        }
        return loss, metrics


def bounded_margin(logits: Array, labels: Array) -> Array:
    """The margin, of which nothing beyond 50 is worth having (the authors' constant)."""
    return jnp.minimum(margin(logits, labels), 50)
