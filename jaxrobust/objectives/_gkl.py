"""Training on the generalised Kullback-Leibler loss."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch, as_number
from jaxrobust.losses import class_prior, class_prior_counts, gkl, prior_weights
from jaxrobust.objectives._attack import clean_output, from_draw, initial
from jaxrobust.objectives._objective import (
    Batch,
    Clock,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    correct,
    devices_of,
    hard_batch,
    needed,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GKL:
    """GKL: TRADES with its divergence taken apart, weighted by what the classes are taken for.

    The loss is `losses.gkl`. Its class prior is the mean prediction of each class in the epoch
    before; in the first epoch it is 1/k. A class without examples in an epoch keeps its row.

    The attack starts at Gaussian noise of standard deviation 0.001 and maximises the soft
    cross-entropy. In the published runs the radius rises linearly over the whole training (a
    schedule of `threat.eps`), with 5 steps of half a radius, AWP 0.005 from epoch 10, and a
    cosine schedule. `gamma=1` with `temperature=4` is the first version (IKL, DKL).

    Cost: `2 * steps + 7` forward units per image.

    Args:
      alpha: weight of the soft cross-entropy. May be traced, as the next four.
      beta: weight of the squared error.
      gamma: power of the class prior; 0.2 for CIFAR-10, 0.4 for CIFAR-100.
      temperature: of the predictions that the class prior is made of; 1, or 4 in the first version.
      attack_beta: weight of the squared error in the attack; 0, and 1 in the CIFAR-100 script.
      steps: attack steps; 5, and 2 of a whole radius in the cheaper variant.
      step_size: default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.gkl(gamma=0.2).passes]
      ['adv', 'clean']

    References:
      Cui et al., Generalized Kullback-Leibler Divergence Loss, 2025 (arXiv:2503.08038), Eq. 9.
    """

    alpha: ArrayLike = 4.0
    beta: ArrayLike = 20.0
    gamma: ArrayLike = 1.0
    temperature: ArrayLike = 1.0
    attack_beta: ArrayLike = 0.0
    steps: int = field(default=5, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"), Pass("clean", "clean"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """`class_prior` `[k, k]`, and the `counts` of this epoch for that of the next."""
        uniform = jnp.full((sizes.num_classes,) * 2, 1 / sizes.num_classes)
        return {"class_prior": uniform, "counts": jnp.zeros_like(uniform)}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`start` `[b, h, w, c]`, Gaussian noise of standard deviation 0.001."""
        images, _ = as_batch(*batch)
        return {"start": initial(key, images, threat, "gaussian")}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """PGD on the soft cross-entropy, and on the squared error without its normaliser."""
        images, _ = batch = hard_batch("gkl", batch)
        prior = needed(state, "class_prior")["class_prior"]
        clean = clean_output(logits_fn, images)
        as_number(self.attack_beta, name="attack_beta", lead=(len(images),))
        weights: Any = {"alpha": 1.0, "beta": self.attack_beta, "normaliser": 1.0}

        def loss(logits: Array, labels: Array) -> Array:
            return gkl(clean, logits, labels, prior, **weights)

        options: Any = {"steps": self.steps, "step_size": self.step_size, "kind": "gaussian"}
        found = from_draw(logits_fn, batch, threat, draws["start"], loss=loss, **options)
        return Views({"adv": found.images}, {})

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.gkl`, normalised over the batch of all devices."""
        clean, adv = logits["clean"], logits["adv"]
        prior = needed(state, "class_prior")["class_prior"]
        sizes = jnp.sum(prior_weights(prior, batch.labels, gamma=self.gamma), -1) ** 2
        loss = gkl(
            clean,
            adv,
            batch.labels,
            prior,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            normaliser=devices_of(state).mean(jnp.mean(sizes)),
        )
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
        }
        return loss, metrics

    def observe(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState,
    ) -> ObjectiveState:
        """The batch's part of the next class prior."""
        clean = logits["clean"]
        return {"counts": class_prior_counts(clean, batch.labels, temperature=self.temperature)}

    def end_step(self, state: ObjectiveState, sums: ObjectiveState, clock: Clock) -> ObjectiveState:
        """Adds up, and at an epoch's end makes the prior of the next."""
        counts = state["counts"] + sums["counts"].astype(state["counts"].dtype)
        following = class_prior(counts, state["class_prior"])
        return {
            "class_prior": jnp.where(clock.ends_epoch, following, state["class_prior"]),
            "counts": jnp.where(clock.ends_epoch, 0, counts),
        }
