"""sigma-zero: every iterate of the official form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import _sigma_zero
from tests.attacks.minimum_norm import EVERY, KEY, Cases, same_result, short_runs, states

NUMBERS = ("step_size", "sigma", "threshold", "threshold_rate")


@pytest.fixture(scope="module")
def cases():
    return Cases("sigma_zero")


@pytest.fixture(scope="module")
def case(cases):
    return cases.case("official")


def test_every_iterate_of_the_reference(cases, case, float64):
    task, steps = cases.task(), case["steps"].item()
    numbers = {n: jnp.full(6, case[n], jnp.float64) for n in NUMBERS}
    limit = numbers.pop("threshold")
    settings = _sigma_zero._Settings(steps=steps, **numbers)
    begin = _sigma_zero._begin(task, limit)
    rows = states(lambda i, s: _sigma_zero._step(task, settings, i, s), begin, steps)
    np.testing.assert_allclose(rows.delta, case["delta"], atol=1e-7)
    np.testing.assert_allclose(rows.threshold, case["threshold_trace"], atol=1e-9)
    np.testing.assert_array_equal(rows.nearest.distance, case["best"])


@EVERY
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_of_the_reference(cases, case, dtype, every):
    numbers = {n: case[n].item() for n in NUMBERS}
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))

        def run(steps):
            attack = jax.jit(
                lambda x, y: attacks.sigma_zero(network, KEY, x, y, steps=steps, **numbers)
            )
            return attack(images, labels)

        if dtype == "float64":
            same_result(run(case["steps"].item()), case)
        for steps, expected in short_runs(case, dtype, every):
            differing = (np.asarray(run(steps).distance) != expected).sum()
            assert differing <= (dtype == "float32"), steps
