"""A data set, an augmentation, a threat, an objective and an optimizer."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import attacks, losses, threats
from jaxrobust.data import Dataset
from jaxrobust.objectives import Pass, Views


def shapes(*, train: int = 512, test: int = 128) -> Dataset:
    """Rows, columns, diagonals and rings at random places of noisy 8x8 images."""
    rng, size = np.random.default_rng(0), train + test
    patterns = np.zeros((4, 8, 8), int)
    patterns[0, 3] = patterns[1, :, 3] = patterns[2, range(8), range(8)] = 1
    patterns[3, 2:6, 2:6], patterns[3, 3:5, 3:5] = 1, 0
    labels, shifts = rng.integers(0, 4, size), rng.integers(0, 8, (size, 2))
    drawn = [np.roll(patterns[k], s, (0, 1)) for k, s in zip(labels, shifts, strict=True)]
    images = (100 * np.stack(drawn) + rng.integers(40, 100, (size, 8, 8))).astype(np.uint8)
    images = images[..., None]
    parts = images[:train], labels[:train], images[train:], labels[train:]
    return Dataset("shapes", *parts, num_classes=4)


def upside_down(p: float = 0.5):
    """Turns an image upside down with probability `p`."""
    return lambda key, image: jnp.where(jax.random.bernoulli(key, p), image[::-1], image)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Brightness:
    """One offset for all pixels of an image, at most `eps`."""

    eps: jax.Array

    def init(self, key, x):
        return jax.random.uniform(key, (), x.dtype, -1, 1) * self.eps

    def ascend(self, z, grad, step_size):
        return z + step_size * jnp.sign(grad)

    def project(self, z, x):
        return jnp.clip(jnp.clip(z, -self.eps, self.eps), -x.min(), 1 - x.max())

    def apply(self, z, x):
        return x + z


def brightness(eps: float) -> Brightness:
    return Brightness(jnp.float32(eps))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Adversarial logit pairing; `weight` may be scheduled, `steps` is structure."""

    weight: float = 0.5
    steps: int = field(default=5, metadata={"static": True})
    attack_statistics = "running"
    passes = (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn, key, batch, threat):
        size = threats.default_step(threat, self.steps)
        options = {"loss": losses.cross_entropy, "steps": self.steps, "step_size": size}
        found = attacks.pgd(logits_fn, key, *batch, threat=threat, **options)
        return Views({"adv": found.images}, {})

    def outer(self, logits, batch, extras):
        pair = jnp.mean((logits["clean"] - logits["adv"]) ** 2, -1)
        loss = losses.cross_entropy(logits["adv"], batch.labels) + self.weight * pair
        return loss, {"pair": pair}


def nadam(learning_rate, b2: float = 0.99):
    """Adam with Nesterov's momentum; `learning_rate` is the experiment's schedule."""
    return optax.adam(learning_rate, b2=b2, nesterov=True)
