"""DeepFool and SuperDeepFool: every point of the authors' runs, and what the passes are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, threats
from jaxrobust.attacks import _deepfool, _superdeepfool
from tests.attacks.minimum_norm import EVERY, KEY, Cases, same_result, short_runs

SUPER = ("sdf", "sdf_nosearch", "sdf_short")


@pytest.fixture(scope="module")
def cases():
    return Cases("deepfool")


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_every_point_of_deepfool(cases, float64, norm):
    case, task = cases.case(norm), cases.task()
    options = {"norm": norm, "overshoot": jnp.full(6, case["overshoot"])}
    step = jax.jit(lambda walk: _deepfool.look_and_move(task, walk, **options))
    walk = _deepfool.begin(task)
    for point in case["visited"]:
        np.testing.assert_allclose(task.images + walk.delta, point, atol=1e-9)
        walk = step(walk)
    assert walk.done.all()


@EVERY
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_of_deepfool(cases, norm, dtype, every):
    case = cases.case(norm)
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))

        def run(steps):
            options = {"norm": norm, "steps": steps, "overshoot": case["overshoot"].item()}
            attack = jax.jit(lambda x, y: attacks.deepfool(network, KEY, x, y, **options))
            return attack(images, labels)

        found = run(case["steps"].item())
        if dtype == "float64":
            same_result(found, case)
        # As many looks as there are different points.
        moves = np.abs(np.diff(case["visited"], axis=0)).max((2, 3, 4)) > 0
        np.testing.assert_array_equal(found.queries, 1 + moves.sum(0))
        np.testing.assert_array_equal(found.backwards, 9 * moves.sum(0))
        for steps, expected in short_runs(case, dtype, every):
            rtol = 1e-8 if dtype == "float64" else 1e-4
            np.testing.assert_allclose(run(steps).distance, expected, rtol=rtol)


@pytest.mark.parametrize("name", SUPER)
def test_every_point_of_superdeepfool(cases, float64, name):
    case, task = cases.case(name), cases.task()
    settings = _superdeepfool._Settings(
        case["deepfool_steps"].item(), jnp.full(6, case["overshoot"])
    )
    step = jax.jit(lambda walk: _superdeepfool._step(task, settings, walk))
    walk = _deepfool.begin(task)
    for i, point in enumerate(case["visited"]):
        np.testing.assert_allclose(task.images + walk.delta, point, atol=1e-9)
        moving = ~np.asarray(walk.done)
        walk, inner = step(walk)
        moving &= ~np.asarray(walk.done)
        if i < len(case["deepfool_points"]):
            inner = np.asarray(task.images + inner)
            np.testing.assert_allclose(inner[moving], case["deepfool_points"][i][moving], atol=1e-9)
    np.testing.assert_allclose(task.images + walk.delta, case["before_search"], atol=1e-9)
    if "line_fraction" in case:
        line = _superdeepfool._search(task, walk, case["search_steps"].item())
        np.testing.assert_allclose(line.high, case["line_fraction"], atol=1e-12)


@pytest.mark.parametrize("name", SUPER)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_results_of_superdeepfool(cases, name, dtype):
    case = cases.case(name)
    counts = {n: case[n].item() for n in ("steps", "deepfool_steps", "search_steps", "overshoot")}
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))
        attack = jax.jit(lambda x, y: attacks.superdeepfool(network, KEY, x, y, **counts))
        found = attack(images, labels)
        if dtype == "float64":
            same_result(found, case)
        np.testing.assert_allclose(found.distance, case["distance"], rtol=1e-4)
    assert found.queries[5] == 1
    bound = attacks.SuperDeepFool(threat=threats.l2(1.0), **counts)
    assert found.queries.max() <= bound.passes(10, targeted=False)[0]
    most = bound.passes(10, targeted=False)[1]
    assert found.backwards[5] == 0
    assert 10 <= found.backwards[:5].min() <= found.backwards.max() <= most
