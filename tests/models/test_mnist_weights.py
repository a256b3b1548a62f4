"""The committed weights of a robust network on real images."""

import pathlib

import jax
import numpy as np

from jaxrobust import attacks, models, threats

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "weights" / "mnist_second"


def test_the_committed_network_withstands_an_attack_on_mnist(golden):
    data = golden("bounds_real")
    images, labels = data["images/mnist"].astype(np.float32) / 255, data["labels/mnist"]
    model = models.small_cnn()
    network = models.logits_fn(
        model, models.load_torch_checkpoint(FOLDER / "model.safetensors", model)
    )
    clean = network(images).argmax(-1) == labels
    keys = jax.random.split(jax.random.key(0), len(images))

    @jax.jit
    def robust(eps):
        attack = attacks.APGD(threat=threats.linf(eps), loss="ce", steps=20)
        return ~attack(network, keys, images, labels).success

    assert clean.sum() >= 39  # of 40
    assert 30 <= robust(0.3).sum() <= clean.sum()
    assert robust(0.5).sum() <= 8
