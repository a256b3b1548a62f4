"""DDN: every iterate of the authors' runs, its grid and its random directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import _ddn
from tests.attacks.minimum_norm import EVERY, KEY, Cases, same_result, short_runs, states

NAMES = ("none", "q256", "targeted")


@pytest.fixture(scope="module")
def cases():
    return Cases("ddn")


def options(cases, name):
    case = cases.case(name)
    found = {n: case[n].item() for n in ("gamma", "init_norm", "steps")}
    found["levels"] = case["levels"].item() or None
    return found | ({"targets": cases.shared("targets")} if name == "targeted" else {})


@pytest.mark.parametrize("name", NAMES)
def test_every_iterate_of_the_reference(cases, float64, name):
    given, case = options(cases, name), cases.case(name)
    task = cases.task(targeted=name == "targeted")
    settings = _ddn._Settings(given["steps"], jnp.full(6, given["gamma"]), given["levels"])
    radius = jnp.full(6, given["init_norm"])
    begin = _ddn._State(jnp.zeros_like(task.images), radius, _ddn.nothing_found(task))
    rows = states(lambda i, s: _ddn._step(task, settings, i, s), begin, given["steps"])
    np.testing.assert_allclose(rows.radius, case["eps"], atol=1e-9)
    np.testing.assert_allclose(rows.delta, case["delta"], atol=1e-9)
    np.testing.assert_allclose(rows.nearest.distance, case["best"], atol=1e-9)


@EVERY
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_of_the_reference(cases, name, dtype, every):
    given, case = options(cases, name), cases.case(name)
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))

        def run(steps):
            attack = jax.jit(
                lambda x, y: attacks.ddn(network, KEY, x, y, **given | {"steps": steps})
            )
            return attack(images, labels)

        if dtype == "float64":
            same_result(run(given["steps"]), case)
        for steps, expected in short_runs(case, dtype, every):
            # Rounding to a grid may fall on either side.
            rtol = 1e-8 if dtype == "float64" else 1e-3 if given["levels"] else 1e-4
            np.testing.assert_allclose(run(steps).distance, expected, rtol=rtol)


def test_images_are_on_the_grid(cases):
    network, images, labels = cases.batch(jnp.float32)
    found = attacks.ddn(network, KEY, images, labels, steps=30, levels=9)
    values = np.asarray(found.images)[np.asarray(found.distance) > 0] * 8
    np.testing.assert_allclose(values, np.round(values), atol=1e-6)
    assert found.success.all()


def test_without_a_gradient_the_direction_is_drawn_from_the_examples_own_key():
    """A network that is constant but for one corner of the box."""
    images, labels = jnp.full((6, 2, 3, 1), 0.5), jnp.zeros(6, int)

    def network(x):
        high = (x[:, 0, 0] > 0.6).astype(x.dtype)
        return jnp.concatenate([1 - high, high], 1)

    keys = jax.random.split(KEY, 6)

    @jax.jit
    def run(keys):
        return attacks.ddn(network, keys, images[: len(keys)], labels[: len(keys)], steps=40)

    found = run(keys)
    assert found.success.all()
    assert len(set(np.asarray(found.distance).tolist())) == 6
    np.testing.assert_array_equal(run(keys[::-1]).distance, found.distance[::-1])
    np.testing.assert_array_equal(run(keys[:2]).images, found.images[:2])
