"""LIET: one-step training from starts that carry information on the label."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_batch, as_number
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy, distance
from jaxrobust.objectives._gradient import (
    cut,
    moved,
    over_images,
    radius,
    slope,
    uniform,
)
from jaxrobust.objectives._objective import (
    Batch,
    Clock,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    batch_key,
    correct,
    hard_batch,
    needed,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.precision import widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn

# From here on the noise is twice as wide, and nothing is projected (8/255, and float32's rounding).
LARGE = 8 / 255 * (1 + 1e-6)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LIET:
    r"""LIET: FGSM from label information, and predictions that agree along the step.

    .. math:: \mathrm{CE}(f(x'), t) + \lambda\, \mathrm{JS}(p(x_0) \,\|\, p(x'))

    The label information of a class is the sign step of a grey image of that class, renewed every
    few steps. The start is that of the example's label, or its negative for the whole batch, with
    a random share of its values replaced by noise. Targets are smoothed at random: the mass off
    the label is spread over the other classes by uniform draws, anew for every loss. Beyond
    8/255 the noise is twice as wide, and the result is cut to the box only.

    In the published runs `lam` rises from epoch to epoch: a schedule of `objective.lam` from
    100 / epochs to 100 (CIFAR-100: 200). The threat must be l_inf.

    Cost: 8 forward units per image, and 2 for each class every few steps.

    Args:
      lam: weight of the Jensen-Shannon divergence. May be traced.
      label_smoothing: mass off the label; 0.6 for CIFAR-10, 0.8 for CIFAR-100.
      min_mask: least share of the values replaced by noise. May be traced, as the next.
      max_mask: largest share.
      every: steps between renewals of the label information; it is renewed at an epoch's start.
      attack_statistics: BatchNorm in the attack: "batch" as published, or "running". The pass over
        the starts, which is the attack's, updates the running statistics as an outer pass.

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.liet(lam=100.0).passes]
      ['start', 'adv']

    References:
      Pan et al., Mitigating Catastrophic Overfitting in Fast Adversarial Training via Label
      Information Elimination, 2025 (ICCV).
    """

    lam: ArrayLike = 100.0
    label_smoothing: float = field(default=0.6, metadata={"static": True})
    min_mask: ArrayLike = 0.1
    max_mask: ArrayLike = 0.5
    every: int = field(default=20, metadata={"static": True})
    attack_statistics: Statistics = field(default="batch", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("start", "start"), Pass("adv", "adv"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """`label_information` `[k, h, w, c]`; 0 until the first step makes it."""
        return {"label_information": jnp.zeros((sizes.num_classes, *sizes.image_shape))}

    def begin_step(
        self, state: ObjectiveState, logits_fn: LogitsFn, key: Array, threat: Threat, clock: Clock
    ) -> ObjectiveState:
        """Renews the label information every few steps of an epoch."""
        old = state["label_information"]
        classes, *image_shape = old.shape

        def renewed() -> Array:
            draw = jax.random.uniform(key, (classes, classes))
            options = {"classes": classes, "image_shape": tuple(image_shape), "draw": draw}
            return self.label_information(logits_fn, threat, **options).astype(old.dtype)

        due = clock.in_epoch % self.every == 0
        return {"label_information": jax.lax.cond(due, renewed, lambda: old)}

    def label_information(
        self,
        logits_fn: LogitsFn,
        threat: Threat,
        classes: int,
        image_shape: tuple[int, ...],
        draw: Array,
    ) -> Array:
        """The sign steps of a grey image for each class.

        Args:
          logits_fn: the network in evaluation mode.
          threat: an l_inf ball with one radius.
          classes: `k`.
          image_shape: `(h, w, c)`.
          draw: `[k, k]` uniform in (0, 1), for the targets.

        Returns:
          `[k, h, w, c]`, values -eps, 0 and eps.
        """
        grey = jnp.full((classes, *image_shape), 0.5, jnp.asarray(draw).dtype)
        targets = random_targets(jnp.arange(classes), draw, self.label_smoothing)
        found = slope(logits_fn, grey, grey, targets, cross_entropy)
        return single_radius(threat, grey, "liet") * jnp.sign(found.gradient)

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`mask`, `noise` `[b, h, w, c]`; `ratio`, `coin` `[]`; `targets_start`, `targets_adv`.

        All are uniform in (0, 1) but the noise, which is in (-eps, eps), or twice that.
        """
        images, _ = as_batch(*batch)
        eps = radius(threat, images, "liet")
        classes = len(needed(state, "label_information")["label_information"])
        keys = per_example_keys(key, len(images))
        ratio, coin = jax.random.uniform(batch_key(keys, state), (2,))

        def targets(number: int) -> Array:
            draw = jax.vmap(lambda k: jax.random.uniform(k, (classes,)))
            return draw(fold_keys(keys, number))

        return {
            "mask": (uniform(fold_keys(keys, 1), images) + 1) / 2,
            "noise": jnp.where(eps > LARGE, 2 * eps, eps) * uniform(fold_keys(keys, 2), images),
            "ratio": ratio,
            "coin": coin,
            "targets_start": targets(3),
            "targets_adv": targets(4),
        }

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """The start made of label information, and a sign step from it."""
        images, labels = batch = hard_batch("liet", batch)
        eps = radius(threat, images, "liet")
        information = needed(state, "label_information")["label_information"]
        start = self._start(images, labels, information, draws)
        targets = random_targets(labels, draws["targets_start"], self.label_smoothing)
        wide = widened(images)
        found = slope(logits_fn, images, wide + start, targets, cross_entropy)
        delta = start + eps * jnp.sign(found.gradient)
        delta = cut(jnp.where(eps > LARGE, delta, jnp.clip(delta, -eps, eps)), images)
        views = {"start": moved(images, start), "adv": moved(images, delta)}
        towards = random_targets(labels, draws["targets_adv"], self.label_smoothing)
        return Views(views, {"targets": towards})

    def _start(
        self, images: Array, labels: Array, information: Array, draws: dict[str, Array]
    ) -> Array:
        """The label's information, some of it replaced by noise, all of it turned or not."""
        wide = widened(images)
        ratio, coin = (jnp.reshape(draws[name], ()) for name in ("ratio", "coin"))
        least = over_images(self.min_mask, images, "min_mask")
        most = over_images(self.max_mask, images, "max_mask")
        masked = draws["mask"] < least + (most - least) * ratio.astype(wide.dtype)
        delta = jnp.where(masked, draws["noise"], information[labels].astype(wide.dtype))
        return cut(jnp.where(coin < 0.5, -delta, delta), images)

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack` with what `draw` draws."""
        as_batch(*batch)
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Cross-entropy at the end of the step, and the divergence along it."""
        start, adv = logits["start"], logits["adv"]
        loss = cross_entropy(adv, extras["targets"])
        divergence = distance("js")(start, adv)
        metrics = {
            "robust_accuracy": correct(adv, batch.labels),
            "start_accuracy": correct(start, batch.labels),
            "divergence": divergence,
        }
        as_number(self.lam, name="lam", lead=loss.shape)
        return loss + jnp.asarray(self.lam, loss.dtype) * divergence, metrics


def random_targets(labels: Array, draw: Array, smoothing: float) -> Array:
    """Targets `[b, k]`: `1 - s` on the label, `s` spread over the others in proportion to a draw.

    Args:
      labels: integer class indices `[b]`.
      draw: `[b, k]`, uniform in (0, 1).
      smoothing: `s`.

    Returns:
      `[b, k]`, rows that sum to 1.
    """
    own = labels[:, None] == jnp.arange(draw.shape[-1], dtype=labels.dtype)[None]
    others = jnp.where(own, 0, draw)
    spread = others / jnp.sum(others, -1, keepdims=True)
    return jnp.where(own, 1 - smoothing, smoothing * spread)


def single_radius(threat: Threat, images: Array, name: str) -> Array:
    """The radius of an l_inf threat that is the same for all examples.

    Raises:
      InputError: for another threat, or a radius per example.
    """
    count = jnp.size(getattr(threat, "eps", 0.0))
    if jnp.ndim(getattr(threat, "eps", 0.0)):
        raise InputError(f"eps must be one number for {name}, got {count}, one per example")
    return radius(threat, images, name)
