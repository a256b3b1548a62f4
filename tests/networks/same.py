"""One small network with BatchNorm in three libraries, and the same weights for all."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from jaxrobust.networks import network

CLASSES, WIDTH = 3, 4


class LinenNet(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(WIDTH, (3, 3), name="conv")(images)
        norm = nn.BatchNorm(
            momentum=0.9, axis_name=self.axis_name, use_fast_variance=False, name="bn"
        )
        x = nn.silu(norm(x, use_running_average=not train))
        self.sow("intermediates", "stage1", x)
        return nn.Dense(CLASSES, name="dense")(x.mean((1, 2)))


class NNXNet(nnx.Module):
    def __init__(self, *, rngs):
        self.conv = nnx.Conv(1, WIDTH, (3, 3), rngs=rngs)
        self.bn = nnx.BatchNorm(WIDTH, momentum=0.9, use_fast_variance=False, rngs=rngs)
        self.ln = nnx.LayerNorm(WIDTH, rngs=rngs)  # has an axis_name that means something else
        self.dense = nnx.Linear(WIDTH, CLASSES, rngs=rngs)

    def __call__(self, images):
        x = nnx.silu(self.bn(self.conv(images)))
        self.sow(nnx.Intermediate, "stage1", x)
        return self.dense(x.mean((1, 2)))


class EquinoxNet(eqx.Module):
    conv: eqx.nn.Conv2d
    bn: eqx.nn.BatchNorm
    dense: eqx.nn.Linear

    def __init__(self, *, key):
        self.conv = eqx.nn.Conv2d(1, WIDTH, 3, padding=1, key=key)
        self.bn = eqx.nn.BatchNorm(WIDTH, "batch", mode="batch", momentum=0.9)
        self.dense = eqx.nn.Linear(WIDTH, CLASSES, key=key)

    def features(self, image, state):
        x, state = self.bn(self.conv(image), state)
        x = jax.nn.silu(x)
        return (self.dense(x.mean((1, 2))), {"stage1": x}), state

    def __call__(self, image, state):
        (logits, _), state = self.features(image, state)
        return logits, state


NETWORKS = {"linen": network(LinenNet()), "nnx": network(NNXNet), "equinox": network(EquinoxNet)}
IMAGES = jax.random.uniform(jax.random.key(1), (8, 6, 6, 1))


def weights(library):
    """Parameters and state of a library's network with the weights of Linen's."""
    params, state = NETWORKS["linen"].init(jax.random.key(0), IMAGES)
    return from_linen(library, params, state)


def from_linen(library, params, state):
    """Linen's parameters and state, or a tree of their structure, as another library holds them."""
    if library == "linen":
        return params, state
    own, held = NETWORKS[library].init(jax.random.key(0), IMAGES)
    if library == "nnx":
        return {**params, "ln": own["ln"]}, state
    conv, dense, norm = params["conv"], params["dense"], params["bn"]
    made = {
        "conv": {
            "weight": conv["kernel"].transpose(3, 2, 0, 1),
            "bias": conv["bias"].reshape(-1, 1, 1),
        },
        "dense": {"weight": dense["kernel"].T, "bias": dense["bias"]},
        "bn": {"weight": norm["scale"], "bias": norm["bias"]},
    }
    assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, own)
    return made, held


class LinenDropout(nn.Module):
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, deterministic=True):
        x = nn.Conv(WIDTH, (3, 3))(images)
        x = nn.BatchNorm(deterministic, momentum=0.9, axis_name=self.axis_name)(x)
        x = nn.Dropout(0.5)(nn.relu(x).mean((1, 2)), deterministic=deterministic)
        return nn.Dense(CLASSES)(x)


class NNXDropout(NNXNet):
    def __init__(self, *, rngs):
        super().__init__(rngs=rngs)
        self.drop = nnx.List([nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)])

    def __call__(self, images):
        x = nnx.relu(self.bn(self.conv(images))).mean((1, 2))
        for drop in self.drop:
            x = drop(x)
        return self.dense(x)


class EquinoxDropout(EquinoxNet):
    drop: eqx.nn.Dropout

    def __init__(self, *, key):
        super().__init__(key=key)
        self.drop = eqx.nn.Dropout(0.5)

    def __call__(self, image, state, *, key=None):
        x, state = self.bn(self.conv(image), state)
        return self.dense(self.drop(jax.nn.relu(x).mean((1, 2)), key=key)), state


DROPOUT = {
    "linen": network(LinenDropout()),
    "nnx": network(NNXDropout),
    "equinox": network(EquinoxDropout),
}
