"""FMN: every iterate of the authors' runs, starts, targets, the stall and its cure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks
from jaxrobust.attacks import _fmn
from tests.attacks.minimum_norm import EVERY, KEY, Cases, same_result, short_runs, size, states

NUMBERS = ("step_size", "final_step_size", "gamma", "final_gamma")
NORMS = ("l0", "l1", "l2", "linf")
QUICK = ("l0", "linf_targeted", "l1_escape")  # of the whole attack; iterates are always compared
TRACED = [*NORMS, "l2_targeted", "linf_targeted", "l2_escape", "l1_escape"]


@pytest.fixture(scope="module")
def cases():
    return Cases("fmn", "fmn_more")


def options(cases, name):
    case = cases.case(name)
    found = {n: case[n].item() for n in NUMBERS} | {"norm": name.split("_")[0]}
    found |= {"steps": case["steps"].item()}
    if name.endswith("targeted"):
        found["targets"] = cases.shared("targets")
    if name.endswith("escape"):
        found["escape"] = True
    if name.endswith("start"):
        _, images, _ = cases.batch()
        found["start"] = cases.shared("start_u8", "fmn_more").astype(np.float64) / 255 - images
        found["search_steps"] = cases.shared("search_steps", "fmn_more").item()
    return found


def settings_of(task, given):
    numbers = {n: jnp.full(6, given[n], jnp.float64) for n in NUMBERS}
    rest = {"norm": given["norm"], "steps": given["steps"], "escape": given.get("escape", False)}
    return _fmn._Settings(**rest, **numbers)


@pytest.mark.parametrize("name", TRACED)
def test_every_iterate_of_the_reference(cases, float64, name):
    given, case = options(cases, name), cases.case(name)
    task = cases.task(targeted="targets" in given)
    settings = settings_of(task, given)
    begin = _fmn._begin(task, settings, None, 0)
    rows = states(lambda i, s: _fmn._step(task, settings, i, s), begin, given["steps"])
    np.testing.assert_allclose(rows.nearest.distance, case["best"], atol=1e-9)
    np.testing.assert_allclose(rows.radius[1:], case["eps"][1:], atol=1e-9)
    np.testing.assert_allclose(rows.delta, case["delta"], atol=1e-9)
    np.testing.assert_array_equal(rows.found[1:], np.logical_or.accumulate(case["is_adv"]))


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(n, marks=pytest.mark.slow) for n in TRACED if n not in QUICK),
        *(*QUICK, *(f"{norm}_start" for norm in NORMS)),
    ],
)
def test_results_of_the_reference(cases, float64, name):
    network, images, labels = cases.batch()
    given, case = options(cases, name), cases.case(name)
    found = jax.jit(lambda x, y: attacks.fmn(network, KEY, x, y, **given))(images, labels)
    # With a start the authors never look at the clean image; the last one is wrong as it is.
    rows = slice(0, 5) if "start" in given else slice(None)
    same_result(found, case, rows, unique=case["image_unique"])
    np.testing.assert_allclose(
        size(found.perturbation, given["norm"])[rows],
        np.where(case["success"], case["distance"], 0)[rows],
        rtol=1e-12,
    )
    if "start" in given:
        assert found.distance[5] == 0
        np.testing.assert_array_equal(found.images[5], images[5])


@pytest.mark.parametrize("name", [f"{norm}_start" for norm in NORMS])
def test_starts_begin_on_the_boundary(cases, float64, name):
    given, case = options(cases, name), cases.case(name)
    task = cases.task()
    start = jnp.asarray(given["start"])
    begin = _fmn._begin(task, settings_of(task, given), start, given["search_steps"])
    np.testing.assert_allclose(begin.delta, case["delta0"], atol=1e-12)


@EVERY
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_other_budgets(cases, norm, dtype, every):
    with jax.enable_x64(dtype == "float64"):
        network, images, labels = cases.batch(jnp.dtype(dtype))
        for steps, expected in short_runs(cases.case(norm), dtype, every):
            given = options(cases, norm) | {"steps": steps}
            found = jax.jit(lambda x, y: attacks.fmn(network, KEY, x, y, **given))(images, labels)  # noqa: B023
            assert found.distance.dtype == dtype
            if dtype == "float64":
                np.testing.assert_allclose(found.distance, expected, rtol=1e-8)
            elif norm == "l0":
                assert (np.asarray(found.distance) != expected).sum() <= 1
            else:
                np.testing.assert_allclose(found.distance, expected, rtol=1e-4)
