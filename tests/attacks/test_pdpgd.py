"""PDPGD: every iterate of the authors' runs, and its proximal operators."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import _pdpgd
from jaxrobust.attacks._proximal import proximal
from tests.attacks.minimum_norm import EVERY, KEY, Cases, same_result, short_runs, states

NUMBERS = (
    "primal_lr", "primal_lr_decrease", "dual_ratio_init", "dual_lr", "dual_lr_decrease", "dual_ema",
    "dual_min_ratio", "proximal_tolerance",
)  # fmt: skip
NAMES = ("l1", "l2", "linf", "l0", "l2_targeted", "linf_start")


@pytest.fixture(scope="module")
def cases():
    return Cases("pdpgd", "pdpgd_more")


def options(cases, name):
    case = cases.case(name)
    found = {n: case[n].item() for n in (*NUMBERS, "steps", "proximal_steps")}
    found["norm"] = name.split("_")[0]
    if name.endswith("targeted"):
        found["targets"] = cases.shared("targets")
    if name.endswith("start"):
        found["start"] = cases.shared("start", "pdpgd_more")
    return found


@pytest.mark.parametrize("name", ["l1", "l2", "linf", "l0"])
def test_every_iterate_of_the_reference(cases, float64, name):
    given, case = options(cases, name), cases.case(name)
    task = cases.task()
    numbers = {n: jnp.full(6, given[n], jnp.float64) for n in NUMBERS}
    dual = -jnp.log(numbers.pop("dual_ratio_init"))
    numbers["dual_most"] = -jnp.log(numbers.pop("dual_min_ratio"))
    rest = {n: given[n] for n in ("norm", "steps", "proximal_steps")}
    settings = _pdpgd._Settings(**rest, **numbers)
    begin = _pdpgd._begin(task, settings, dual, None)
    rows = states(lambda i, s: _pdpgd._step(task, settings, i, s), begin, given["steps"])
    atol = 1e-7 if name == "l0" else 1e-9
    np.testing.assert_allclose(rows.delta, case["delta"], atol=atol)
    np.testing.assert_allclose(rows.dual, case["lam"], atol=1e-9)
    np.testing.assert_allclose(rows.shares, case["lam_ema"], atol=1e-9)
    np.testing.assert_allclose(rows.nearest.distance, case["best"], atol=atol)


@EVERY
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_of_the_reference(cases, name, dtype, every):
    given, case = options(cases, name), cases.case(name)
    # With a start the authors never look at the clean image; the last one is wrong as it is.
    rows = slice(0, 5) if "start" in given else slice(None)
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))

        def run(steps):
            attack = jax.jit(
                lambda x, y: attacks.pdpgd(network, KEY, x, y, **given | {"steps": steps})
            )
            return attack(images, labels)

        # Iterates of the first four are compared above.
        if dtype == "float64" and (every or name not in ("l1", "l2", "linf")):
            found = run(given["steps"])
            same_result(found, case, rows)
            if "start" in given:
                assert found.distance[5] == 0
        for steps, expected in short_runs(case, dtype, every):
            if dtype == "float32" and steps > 16:
                continue
            distance = run(steps).distance
            if dtype == "float64":
                np.testing.assert_allclose(distance[rows], expected[rows], rtol=1e-8)
            elif name == "l0":
                assert (np.asarray(distance) != expected).sum() <= 1
            else:
                np.testing.assert_allclose(distance[rows], expected[rows], rtol=1e-4)


@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_proximal_points_are_minimisers(float64, norm):
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(4, 3, 2, 1)))
    weight = jnp.asarray([0.01, 0.3, 2.0, 50.0])

    def objective(u):
        size = np.linalg.norm(
            np.asarray(u).reshape(4, -1), {"l1": 1, "l2": 2, "linf": np.inf}[norm], axis=1
        )
        return np.square(u - values).sum((1, 2, 3)) / 2 + np.asarray(weight) * size

    best = np.asarray(proximal(values, weight, norm))
    for scale in (1e-4, 1e-2, 1):
        for _ in range(20):
            other = best + scale * rng.normal(size=best.shape)
            assert (objective(other) >= objective(best)).all()
            assert (objective(best * (1 - min(scale, 1))) >= objective(best)).all()


def test_the_two_thirds_operator_is_a_stationary_point_or_zero(float64):
    values = jnp.linspace(-3, 3, 1201).reshape(1, -1, 1, 1)
    for weight in (1e-3, 0.1, 1.0):
        found = np.asarray(proximal(values, jnp.asarray([weight]), "l0")).ravel()
        v = np.asarray(values).ravel()
        some = found != 0
        slope = (
            found
            - v
            + weight * 2 / 3 * np.sign(found) * np.abs(np.where(some, found, 1)) ** (-1 / 3)
        )
        np.testing.assert_allclose(slope[some], 0, atol=1e-8)
        first = 4 * (2 * weight / 9) ** 0.75
        np.testing.assert_array_equal(some, np.abs(v) >= first)
