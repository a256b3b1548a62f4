"""One-step adversarial training from a random start: FGSM-RS and N-FGSM."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._gradient import (
    cut,
    cut_to_ball,
    moved,
    over_images,
    radius,
    smoothed_slope,
    statistics_of,
    uniform,
)
from jaxrobust.objectives._objective import (
    AttackStatistics,
    Batch,
    Pass,
    Stateful,
    Views,
    correct,
)
from jaxrobust.objectives._ranges import ANY_STATISTICS, check_ranges
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class FGSMRS:
    """FGSM-RS: one sign step from a random start, projected back into the threat.

    A pass and a step more than standard training: a third of the cost of PGD with two steps. It
    may collapse during training (catastrophic overfitting): the accuracy under PGD on held-out
    examples falls to 0 within an epoch. Watch it, or use `n_fgsm` or `grad_align`.

    The threat must be l_inf.

    Cost: 5 forward units per image.

    Args:
      step_size: of the sign step; default 1.25 eps. May be traced.
      label_smoothing: of the cross-entropy in attack and loss, as in `losses.cross_entropy`; 0.4 in
        the FastAT benchmark.
      attack_statistics: BatchNorm in the attack: "update" as published (the attack's pass moves the
        running statistics), "batch" or "running".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.fgsm_rs().attack_statistics
      'update'

    References:
      Wong et al., Fast is Better than Free, 2020 (arXiv:2001.03994), Algorithm 3.
    """

    step_size: ArrayLike | None = None
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    attack_statistics: AttackStatistics = field(default="update", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=ANY_STATISTICS)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def draw(self, key: Array, batch: Batch, threat: Threat) -> dict[str, Array]:
        """`start` `[b, h, w, c]`: noise in (-eps, eps), before the box."""
        images, _ = as_batch(*batch)
        return {"start": radius(threat, images, "fgsm_rs") * uniform(key, images)}

    def attack(
        self,
        logits_fn: LogitsFn | Stateful,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: None = None,
    ) -> Views:
        """One step from the start that was drawn."""
        images, _ = as_batch(*batch)
        eps = radius(threat, images, "fgsm_rs")
        size = 1.25 * eps
        if self.step_size is not None:
            size = over_images(self.step_size, images, "step_size")
        start = cut(draws["start"], images)
        found = smoothed_slope(logits_fn, batch, start, self.label_smoothing)
        delta = cut_to_ball(start + size * jnp.sign(found.gradient), images, eps)
        return Views({"adv": moved(images, delta)}, {}, None, statistics_of(logits_fn, found))

    def inner(
        self, logits_fn: LogitsFn | Stateful, key: Array, batch: Batch, threat: Threat
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat))

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images."""
        return smoothed_error(logits["adv"], batch, self.label_smoothing)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class NFGSM:
    """N-FGSM: one sign step from strong noise, and no projection into the threat.

    The noise is wider than the threat, and the step of size eps starts from where the box cuts it.
    So the training images may be up to `noise + 1` radii away. This prevents the collapse of
    `fgsm_rs` at no further cost.

    The threat must be l_inf.

    Cost: 5 forward units per image.

    Args:
      noise: width of the start in radii; 2, and 3 for SVHN at 12/255. May be traced.
      step_size: of the sign step; default eps. May be traced.
      label_smoothing: of the cross-entropy in attack and loss, as in `losses.cross_entropy`; 0.4 in
        the FastAT benchmark.
      attack_statistics: BatchNorm in the attack: "update" as published, "batch" or "running".

    Example:
      >>> from jaxrobust import objectives
      >>> objectives.n_fgsm(noise=3.0).passes
      (Pass(name='adv', view='adv'),)

    References:
      de Jorge et al., Make Some Noise: Reliable and Efficient Single-Step Adversarial Training,
      2022 (arXiv:2202.01181), Algorithm 1.
    """

    noise: ArrayLike = 2.0
    step_size: ArrayLike | None = None
    label_smoothing: float = field(default=0.0, metadata={"static": True})
    attack_statistics: AttackStatistics = field(default="update", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self, attack_statistics=ANY_STATISTICS)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"),)

    def draw(self, key: Array, batch: Batch, threat: Threat) -> dict[str, Array]:
        """`start` `[b, h, w, c]`: noise in (-noise eps, noise eps), before the box."""
        images, _ = as_batch(*batch)
        width = over_images(self.noise, images, "noise") * radius(threat, images, "n_fgsm")
        return {"start": width * uniform(key, images)}

    def attack(
        self,
        logits_fn: LogitsFn | Stateful,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: None = None,
    ) -> Views:
        """One step from the start that was drawn, cut to the box."""
        images, _ = as_batch(*batch)
        eps = radius(threat, images, "n_fgsm")
        size = eps
        if self.step_size is not None:
            size = over_images(self.step_size, images, "step_size")
        start = cut(draws["start"], images)
        found = smoothed_slope(logits_fn, batch, start, self.label_smoothing)
        delta = cut(start + size * jnp.sign(found.gradient), images)
        return Views({"adv": moved(images, delta)}, {}, None, statistics_of(logits_fn, found))

    def inner(
        self, logits_fn: LogitsFn | Stateful, key: Array, batch: Batch, threat: Threat
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat))

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy on the adversarial images."""
        return smoothed_error(logits["adv"], batch, self.label_smoothing)


def smoothed_error(
    logits: Array, batch: Batch, label_smoothing: float
) -> tuple[Array, dict[str, Array]]:
    loss = cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    return loss, {"robust_accuracy": correct(logits, batch.labels)}
