"""The golden cases of the minimum-norm attacks, and how their runs are compared."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.attacks import _nearest
from tests.conftest import GOLDEN
from tests.tiny import tiny_logits, tiny_params

KEY = jax.random.key(0)
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}


def read(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        return dict(archive)


def size(values, norm):
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    return np.linalg.norm(values, ORDER[norm], axis=1)


class Cases:
    """A file of cases: the batch, and each case's arrays without its prefix."""

    def __init__(self, *files):
        self.data = {}
        for file in files:
            self.data |= {f"{file}/{k}": v for k, v in read(f"minnorm_public_{file}").items()}
        self.core = read("at_public_core")
        self.files = files

    def shared(self, name, file=None):
        return self.data[f"{file or self.files[0]}/{name}"]

    def case(self, name):
        for file in self.files:
            prefix = f"{file}/{name}."
            found = {
                k.removeprefix(prefix): v for k, v in self.data.items() if k.startswith(prefix)
            }
            if found:
                return found
        raise KeyError(name)

    def batch(self, dtype=jnp.float64):
        """Network, images and labels."""
        params = {k: v.astype(dtype) for k, v in tiny_params(self.core).items()}
        images = jnp.asarray(self.shared("x_u8").astype(np.float64) / 255, dtype)
        return lambda x: tiny_logits(params, x)[0], images, jnp.asarray(self.shared("labels"))

    def task(self, targeted=False):
        network, images, labels = self.batch()
        targets = jnp.asarray(self.shared("targets")) if targeted else None
        return _nearest.task_of(network, KEY, images, labels, targets)


def states(step, state, steps):
    """The state before each step and after the last one, stacked."""

    def move(state, i):
        return step(i, state), state

    last, rows = jax.jit(lambda s: jax.lax.scan(move, s, jnp.arange(steps)))(state)
    return jax.tree.map(lambda rows, last: np.concatenate([rows, last[None]]), rows, last)


def same_result(found, case, rows=slice(None), rtol=1e-8, unique=None):
    """Distances, images and success of a float64 run."""
    np.testing.assert_allclose(found.distance[rows], case["distance"][rows], rtol=rtol)
    np.testing.assert_array_equal(found.success[rows], case["success"][rows])
    alike = np.ones(len(found.images), bool) if unique is None else unique
    np.testing.assert_allclose(
        np.asarray(found.images)[rows][alike[rows]], case["images"][rows][alike[rows]], atol=1e-7
    )


def short_runs(case, dtype, every):
    """`(steps, distance)` of other budgets of a case; all of them, or one that is quick."""
    runs = {
        int(k[1:].split(".")[0]): v for k, v in case.items() if re.fullmatch(r"T\d+.distance", k)
    }
    if every:
        return runs.items()
    few = max(steps for steps in runs if steps <= 16)
    return [(few, runs[few])] if dtype == "float32" else []


EVERY = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
