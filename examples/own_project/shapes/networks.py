"""One network in two libraries, with BatchNorm."""

import equinox as eqx
import jax
from flax import nnx


class NnxNet(nnx.Module):
    """Takes a batch `[b, h, w, c]`."""

    def __init__(self, width: int = 8, *, num_classes: int, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, width, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.second = nnx.Conv(width, 2 * width, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(2 * width, num_classes, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.norm(self.first(images)))
        return self.dense(nnx.relu(self.second(x)).max((1, 2)))


class EquinoxNet(eqx.Module):
    """Takes one image `[c, h, w]` and the state of BatchNorm."""

    first: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    second: eqx.nn.Conv2d
    dense: eqx.nn.Linear

    def __init__(self, width: int = 8, *, num_classes: int, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(1, width, 3, padding=1, key=keys[0])
        self.norm = eqx.nn.BatchNorm(width, "batch", mode="batch")
        self.second = eqx.nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, key=keys[1])
        self.dense = eqx.nn.Linear(2 * width, num_classes, key=keys[2])

    def __call__(self, image, state):
        x, state = self.norm(self.first(image), state)
        x = jax.nn.relu(self.second(jax.nn.relu(x)))
        return self.dense(x.max((1, 2))), state
