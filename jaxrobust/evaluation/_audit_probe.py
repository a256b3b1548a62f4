"""The quality of a network's gradients: size, gain in loss, and randomness."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.attackable import judging, prepare
from jaxrobust.attacks import pgd, square
from jaxrobust.keys import fold_keys
from jaxrobust.losses import cross_entropy, margin
from jaxrobust.threats import default_step, norm_of

CLIMB = 10  # steps of a gradient attack; random search has as many passes
NUDGE = 1e-6  # of a pixel value, far below what 8 bits can hold
VANISHING = 1e-10


class Probe(NamedTuple):
    """Measurements of the gradients at some points.

    Attributes:
      ce_gradient: `[p]` largest absolute value of the cross-entropy's gradient.
      margin_gradient: `[p]` likewise of the margin's.
      climbed: `[p]` how far 10 steps along gradients raise the margin loss.
      searched: `[p]` how far random search with the same number of passes raises it.
      jump: `[p]` how far logits move when all pixels move by 1e-6, relative to their spread.
    """

    ce_gradient: Any
    margin_gradient: Any
    climbed: Any
    searched: Any
    jump: Any

    @property
    def vanishing(self) -> np.ndarray:
        """`[p]` bool, points whose cross-entropy has almost no gradient."""
        return ~(self.ce_gradient > VANISHING)

    @property
    def dead(self) -> np.ndarray:
        """`[p]` bool, points whose margin has no gradient at all."""
        return ~(self.margin_gradient > 0)

    @property
    def outclimbed(self) -> np.ndarray:
        """`[p]` bool, points where random search climbs higher than gradients."""
        return self.searched > self.climbed

    @property
    def jumping(self) -> np.ndarray:
        """`[p]` bool, points whose logits jump at an invisible change."""
        return self.jump > 0.1


def probe(threat: Any, logits_fn: Any, keys: Array, images: Array, labels: Array) -> Probe:
    """See `Probe`; traceable."""
    before = margin(logits_fn(images), labels)
    climbed = pgd(
        logits_fn, keys, images, labels, threat=threat, loss=margin, steps=CLIMB,
        step_size=default_step(threat, CLIMB), keep="best",
    )  # fmt: skip
    norm: Any = norm_of(threat)
    queries = 2 * CLIMB  # a step is a pass forward and one back
    searched = square(logits_fn, keys, images, labels, norm=norm, eps=threat.eps, queries=queries)
    signs = jax.vmap(lambda key: jax.random.rademacher(key, images.shape[1:], images.dtype))
    nudged = logits_fn(jnp.clip(images + NUDGE * signs(fold_keys(keys, 1)), 0, 1))
    logits = logits_fn(images)
    spread = jnp.max(logits, -1) - jnp.min(logits, -1)
    return Probe(
        _size(logits_fn, cross_entropy, images, labels),
        _size(logits_fn, margin, images, labels),
        climbed.loss - before,
        searched.loss - before,
        jnp.max(jnp.abs(nudged - logits), -1) / jnp.maximum(spread, jnp.finfo(spread.dtype).tiny),
    )


def _size(logits_fn: Any, loss: Any, images: Array, labels: Array) -> Array:
    judged = prepare(judging(logits_fn, loss, labels), images)
    slopes = jax.grad(lambda x: jnp.sum(judged(x)[0]))(images)
    return jnp.max(jnp.abs(slopes), (1, 2, 3))
