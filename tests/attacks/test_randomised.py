"""Attacks whose number of steps and momentum are drawn: traced, and the same as static ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from tests.attacks.test_apgd import KEYS, batch, curved


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["fooling", "loss"])
def test_apgd_of_so_many_iterations_is_apgd_of_so_many_steps(keep):
    images, labels = batch()
    settings = {"norm": "linf", "eps": 0.05, "keep": keep}
    traces = []

    @jax.jit
    def drawn(number):
        traces.append(1)
        return attacks.apgd(
            curved, KEYS, images, labels, steps=12, iterations=number, **settings
        )  # fmt: skip

    for steps in (0, 1, 5, 12):
        static = jax.jit(
            lambda s=steps: attacks.apgd(curved, KEYS, images, labels, steps=s, **settings)
        )
        ours, theirs = drawn(steps), static()
        np.testing.assert_allclose(ours.images, theirs.images, atol=1e-6)
        np.testing.assert_array_equal(ours.success, theirs.success)
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.slow
def test_the_images_of_the_highest_loss():
    images, labels = batch()
    found = attacks.apgd(
        curved, KEYS, images, labels, norm="l2", eps=0.5, steps=10, keep="loss"
    )  # fmt: skip
    at = losses.cross_entropy(curved(found.images), labels)
    np.testing.assert_allclose(at, found.loss, rtol=1e-5)
    assert (at >= losses.cross_entropy(curved(images), labels)).all()
    assert (jnp.abs(found.images - images).max((1, 2, 3)) > 0).all()
    with pytest.raises(ValueError, match="keep must be 'fooling', or 'loss' with one restart"):
        attacks.apgd(curved, KEYS, images, labels, norm="l2", eps=0.5, keep="loss", restarts=2)
    with pytest.raises(ValueError, match="stages are static"):
        attacks.apgd(
            curved, KEYS, images, labels, norm="l1", eps=0.5, eps_schedule=True, iterations=3
        )


@pytest.mark.slow
def test_pgd_of_traced_steps_and_momentum(key):
    images, labels = batch()
    settings = {"threat": threats.linf(0.05), "step_size": 0.01}

    @jax.jit
    def drawn(steps, momentum):
        return attacks.pgd(
            curved, key, images, labels, steps=steps, momentum=momentum, **settings
        ).images

    momenta = jnp.linspace(0.0, 0.9, len(images))
    for steps in (1, 4):
        each = drawn(jnp.int32(steps), momenta)
        for row, momentum in ((0, 0.0), (-1, 0.9)):
            one = attacks.pgd(
                curved, key, images, labels, steps=steps, momentum=momentum, **settings
            ).images
            np.testing.assert_allclose(each[row], one[row], atol=1e-6)
