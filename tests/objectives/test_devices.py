"""Recipes with state or quantities of the whole batch: two devices, or parts of a batch, are one."""

import chex
import jax
import numpy as np
import pytest

from jaxrobust import objectives, threats
from jaxrobust.objectives import Sizes
from tests.objectives.recipes import one_step, variables

LINF, UNION = threats.linf(0.03), threats.union(linf=0.03, l2=0.2, l1=0.8)
RUNNING = {"attack_statistics": "running"}
RECIPES = {
    "grad_align": (objectives.grad_align(lam=0.5, **RUNNING), LINF),
    "liet": (objectives.liet(**RUNNING), LINF),
    "pgi": (objectives.pgi(**RUNNING), LINF),
    "nuat": (objectives.nuat(**RUNNING), LINF),
    "gkl": (objectives.gkl(gamma=0.4, steps=2), LINF),
    "eat": (objectives.eat(steps=2), UNION),
    "ramp": (objectives.ramp(lbd=3.0, steps=2), UNION),
    "msd": (objectives.msd(steps=2), UNION),
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RECIPES)
def test_two_devices_are_one(golden, name):
    objective, threat = RECIPES[name]
    data = golden("beyond_public_union")
    before, index = variables(data, "init."), np.array([3, 1, 4, 0, 5, 9, 2, 6])
    sizes = Sizes(10, (6, 6, 3), 18, threat)
    options = {"before": before, "index": index, "sizes": sizes, "step": 7, "steps": 4}
    one, two = (one_step(data, objective, threat, devices=n, **options) for n in (1, 2))
    chex.assert_trees_all_close(one[0], two[0], atol=1e-9)
    chex.assert_trees_all_close(one[1], two[1], atol=1e-9)
    if name == "pgi":
        assert (jax.tree.map(lambda a: np.abs(a[index]).max() > 0, one[0].objective)).values()
        assert not np.delete(one[0].objective["momentum"], index, 0).any()
    if name == "gkl":  # the last step of an epoch makes the prior
        assert not np.allclose(one[0].objective["class_prior"], 0.1)
    if name == "eat":
        assert one[0].objective["seen"].sum() == 8


@pytest.mark.parametrize("name", ["pgi", "gkl", "eat"])
def test_parts_of_a_batch_follow_each_other(golden, name):
    """Sums and memories of microbatches are those of the batch."""
    objective, threat = RECIPES[name]
    data = {k: v.astype(np.float32) if v.dtype == np.float64 else v
            for k, v in golden("beyond_public_union").items()}  # fmt: skip
    before, index = variables(data, "init."), np.array([3, 1, 4, 0, 5, 9, 2, 6])
    sizes = Sizes(10, (6, 6, 3), 18, threat)
    options = {"before": before, "index": index, "sizes": sizes, "step": 5, "steps": 4}
    after, _ = one_step(data, objective, threat, settings={"microbatches": 2}, **options)
    if name == "pgi":
        rows = np.abs(after.objective["momentum"]).max((1, 2, 3)) > 0
        np.testing.assert_array_equal(np.flatnonzero(rows), np.sort(index))
    elif name == "gkl":
        labels = np.bincount(data["y"][index], minlength=10)
        np.testing.assert_allclose(after.objective["counts"].sum(1), labels, rtol=1e-5)
    else:
        assert after.objective["seen"].sum() == 8


def test_parts_with_moving_statistics_are_refused(golden):
    data = golden("beyond_public_fast")
    options = {"before": variables(data, "init."), "index": np.arange(6)}
    with pytest.raises(ValueError, match='microbatches must be 1 for attack_statistics "update"'):
        one_step(data, objectives.n_fgsm(), LINF, settings={"microbatches": 2}, **options)
