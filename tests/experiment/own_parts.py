"""Parts as a project of its own would define them; tests copy this file into an empty folder."""

from dataclasses import dataclass, field

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import attacks, losses, threats
from jaxrobust.data import Dataset
from jaxrobust.objectives import Pass, Views


def stripes(*, train: int = 32, test: int = 16):
    """Dark images, with one bright row or one bright column."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, train + test)
    images = rng.integers(0, 99, (train + test, 8, 8, 1), dtype=np.uint8)
    images[labels == 0, 3, :] = 255
    images[labels == 1, :, 3] = 255
    return Dataset(
        "stripes", images[:train], labels[:train], images[train:], labels[train:], num_classes=2
    )


class Tiny(nn.Module):
    """A network with BatchNorm."""

    num_classes: int
    width: int = 4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Conv(self.width, (3, 3))(images)
        x = nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name if train else None)(x)  # fmt: skip
        return nn.Dense(self.num_classes)(nn.relu(x).reshape(len(images), -1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Brightness:
    """One offset for all pixels of an image."""

    eps: jax.Array

    def init(self, key, x):
        return jax.random.uniform(key, (), x.dtype, -1, 1) * self.eps

    def ascend(self, z, grad, step_size):
        return z + step_size * jnp.sign(grad)

    def project(self, z, x):
        return jnp.clip(jnp.clip(z, -self.eps, self.eps), -x.min(), 1 - x.max())

    def apply(self, z, x):
        return x + z


def brightness(eps: float):
    return Brightness(jnp.asarray(eps, jnp.float32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class pairing:
    """Adversarial logit pairing."""

    weight: float = 0.5
    steps: int = field(default=10, metadata={"static": True})
    attack_statistics = "running"
    passes = (Pass("clean", "clean"), Pass("adv", "adv"))

    def inner(self, logits_fn, key, batch, threat):
        step = threats.default_step(threat, self.steps)
        options = {"threat": threat, "loss": losses.cross_entropy, "steps": self.steps}
        return Views({"adv": attacks.pgd(logits_fn, key, *batch, step_size=step, **options).images}, {})  # fmt: skip

    def outer(self, logits, batch, extras):
        pair = jnp.sum((logits["clean"] - logits["adv"]) ** 2, -1)
        return losses.cross_entropy(logits["adv"], batch.labels) + self.weight * pair, {"pair": pair}  # fmt: skip


def upside_down(p=0.5):
    return lambda key, image: jnp.where(jax.random.bernoulli(key, p), image[::-1], image)


def slow_sgd(learning_rate, factor=0.5):
    return optax.chain(optax.sgd(learning_rate, momentum=0.9), optax.scale(factor))


def halved(*, peak: float):
    """A schedule in epochs, as the library's."""
    return lambda steps_per_epoch, epochs: optax.linear_schedule(
        peak, peak / 2, steps_per_epoch * epochs
    )
