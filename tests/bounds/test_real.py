"""Published networks on real images, against the reference's bounds and AutoAttack's verdicts.

The weights are other people's, and no part of this repository: JAXROBUST_BOUNDS_WEIGHTS names a
folder with `cifar10_resnet2b.npz` and the others, as NumPy archives with PyTorch's names.
"""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import bounds, threats
from tests.bounds.nets import channels

FOLDER = os.environ.get("JAXROBUST_BOUNDS_WEIGHTS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="JAXROBUST_BOUNDS_WEIGHTS names no folder of weights"),
]
NORMALISED = {
    "cifar10_resnet2b": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar10_oval_base": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
}
BATCHES = {"ibp": 40, "crown-ibp": 40, "crown": 4, "alpha-crown": 4}
KEYS = {"ibp": "ibp", "crown-ibp": "crown_ibp", "crown": "crown", "alpha-crown": "alpha_final"}


def conv(x, weights, name, stride, padding):
    kernel = jnp.transpose(weights[f"{name}.weight"], (2, 3, 1, 0))
    axes = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(padding, padding)] * 2, dimension_numbers=axes
    )
    return x + channels(weights[f"{name}.bias"])


def dense(x, weights, name):
    if x.ndim == 4:
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(len(x), -1)
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"][None]


def resnet2b(weights, x):
    x = jax.nn.relu(conv(x, weights, "conv1", 2, 1))
    for block, stride in (("layer1.0", 2), ("layer1.1", 1)):
        y = jax.nn.relu(conv(x, weights, f"{block}.conv1", stride, 1))
        y = conv(y, weights, f"{block}.conv2", 1, 1)
        short = f"{block}.shortcut.0"
        x = jax.nn.relu(y + (conv(x, weights, short, stride, 0) if stride == 2 else x))
    return dense(jax.nn.relu(dense(x, weights, "linear1")), weights, "linear2")


def sequential(weights, x):
    layers = sorted({int(name.split(".")[0]) for name in weights})
    for layer in layers:
        is_conv = weights[f"{layer}.weight"].ndim == 4
        x = conv(x, weights, layer, 2, 1) if is_conv else dense(x, weights, layer)
        x = x if layer == layers[-1] else jax.nn.relu(x)
    return x


class Real:
    """A published network, with its images and stored bounds."""

    def __init__(self, golden, name):
        self.data, self.name = golden("bounds_real"), name
        with np.load(pathlib.Path(str(FOLDER)) / f"{name}.npz") as archive:
            self.weights = {k: jnp.asarray(v) for k, v in archive.items()}
        count = len(self["index"])
        source = name.split("_")[0]
        self.x = jnp.asarray(self.data[f"images/{source}"][:count], jnp.float32) / 255
        self.y = self.data[f"labels/{source}"][:count]
        self.cases = {case["case"]: case for case in json.loads(str(self["cases"]))}

    def __getitem__(self, key):
        return self.data[f"{self.name}/{key}"]

    def logits(self, x):
        if self.name in NORMALISED:
            mean, std = (channels(jnp.asarray(v, x.dtype)) for v in NORMALISED[self.name])
            x = (x - mean) / std
        return (resnet2b if self.name == "cifar10_resnet2b" else sequential)(self.weights, x)

    def margins(self, case, method):
        @jax.jit
        def of(x, y):
            threat = threats.linf(self.cases[case]["eps"])
            return bounds.margins(self.logits, x, y, threat=threat, method=method)

        size = BATCHES[method]
        parts = range(0, len(self.y), size)
        return np.concatenate([of(self.x[i : i + size], self.y[i : i + size]) for i in parts])


NAMES = ("cifar10_resnet2b", "cifar10_oval_base", "mnist_cnn_a_adv", "mnist_kw_small")


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_the_references(golden, name, method):
    real = Real(golden, name)
    np.testing.assert_allclose(real.logits(real.x), real["logits"], rtol=1e-4, atol=1e-4)
    for case in real.cases:
        found, stored = real.margins(case, method), real[f"{case}/{KEYS[method]}"]
        scale = 1 + np.abs(stored).max(-1, keepdims=True)
        assert (np.abs(found - stored) <= 1e-4 * scale).all()
        proved = np.asarray(bounds.verified(found))
        assert proved.sum() == np.asarray(bounds.verified(jnp.asarray(stored))).sum()
        assert real[f"{case}/autoattack"][proved].all()
        assert (found <= real[f"{case}/attained"] + 1e-4 * scale).all()


@pytest.mark.parametrize("name", ["cifar10_oval_base"])
def test_alpha_crown(golden, name):
    real = Real(golden, name)
    case = next(iter(real.cases))
    found, start, wanted = (
        real.margins(case, "alpha-crown"),
        real[f"{case}/crown"],
        real[f"{case}/alpha_final"],
    )
    assert (found >= wanted - 0.1 * np.abs(wanted - start) - 2e-3).all()
    assert real[f"{case}/autoattack"][np.asarray(bounds.verified(found))].all()
