"""Laws of every attack on inputs that Hypothesis draws: odd shapes, few and many classes, logits of
every kind, half precision."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrobust import attacks, losses, threats
from jaxrobust.inputs import InputError

MAKE = {"linf": threats.linf, "l2": threats.l2, "l1": threats.l1}
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}
SLACK = {"linf": 1e-6, "l2": 1e-6, "l1": 1e-5}  # relative, of float32
SHAPES = ((1, 1, 1), (1, 1, 3), (1, 6, 1), (5, 2, 1), (3, 4, 3), (2, 2, 2))
CLASSES = (1, 2, 3, 4, 300)
LOGITS = ("linear", "steep", "constant", "one NaN", "all NaN", "infinite", "NaN once moved")


def in_a_ball(norm, eps):
    """Every attack on a norm, by name, at a radius."""
    ball, threat = {"norm": norm, "eps": eps}, MAKE[norm](eps)
    step = {"step_size": max(eps, 0.01) / 2}
    targeted = attacks.APGD(threat=threat, loss="dlr_targeted", steps=2)
    found = {
        "pgd": lambda *a: attacks.pgd(*a, threat=threat, steps=2, momentum=0.5, **step),
        "pgd, margin": lambda *a: attacks.pgd(
            *a, threat=threat, steps=2, restarts=2, keep="best", loss=losses.margin, **step
        ),
        "fgsm": lambda *a: attacks.fgsm(*a, threat=threat),
        "worst_of_k": lambda *a: attacks.worst_of_k(*a, threat=threat, k=2),
        "apgd": lambda *a: attacks.apgd(*a, steps=4, **ball),
        "apgd, dlr": lambda *a: attacks.apgd(*a, steps=3, restarts=2, loss="dlr", **ball),
        "fab": lambda *a: attacks.fab(*a, steps=3, restarts=2, **ball),
        "square": lambda *a: attacks.square(*a, queries=5, restarts=2, **ball),
        "min_margin": lambda *a: attacks.min_margin(*a, steps=2, targets=1, **ball),
        "malt": lambda *a: attacks.MALT(attack=targeted, targets=2)(*a),
    }
    if norm == "linf":
        found["pma"] = lambda *a: attacks.pma(*a, eps=eps, steps=3)
        found["cr"] = lambda *a: attacks.cr(*a, eps=eps, steps=4, period=2, targets=1, restarts=1)
    return found


def smallest(norm):
    """Every attack that looks for the smallest perturbation, by name."""
    found = {
        "fmn": lambda *a: attacks.fmn(*a, norm=norm, steps=6, escape=norm in ("l1", "l2")),
        "pdpgd": lambda *a: attacks.pdpgd(*a, norm=norm, steps=6),
    }
    if norm in ("l2", "linf"):
        found["deepfool"] = lambda *a: attacks.deepfool(*a, norm=norm, steps=4)
    if norm == "l2":
        found["ddn"] = lambda *a: attacks.ddn(*a, steps=6)
        found["superdeepfool"] = lambda *a: attacks.superdeepfool(*a, steps=2, deepfool_steps=2)
    if norm == "l0":
        found["sigma_zero"] = lambda *a: attacks.sigma_zero(*a, steps=6)
    return found


SPATIAL = {
    "spatial_grid": lambda *a: attacks.spatial_grid(
        *a, threat=threats.spatial(20, 1), counts=(1, 3, 3)
    ),
    "worst_of_k": lambda *a: attacks.worst_of_k(*a, threat=threats.spatial(20, 1), k=2),
}
BALLS = [(norm, name) for norm in MAKE for name in in_a_ball(norm, 0.1)]
SMALLEST = [(norm, name) for norm in ORDER for name in smallest(norm)]


@st.composite
def inputs(draw):
    """Images with walls of the box, labels, and a network."""
    shape, classes = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(CLASSES))
    count, seed = draw(st.integers(1, 4)), draw(st.integers(0, 99))
    dtype = draw(st.sampled_from((jnp.float32, jnp.bfloat16, jnp.float16)))
    kind = draw(st.sampled_from(LOGITS))
    pixels, weights, classed = jax.random.split(jax.random.key(seed), 3)
    images = jnp.clip(jax.random.uniform(pixels, (count, *shape), minval=-0.3, maxval=1.3), 0, 1)
    images = images.astype(dtype)
    network = functools.partial(
        logits, jax.random.normal(weights, (np.prod(shape), classes)), kind, images
    )
    labels = np.asarray(jax.random.randint(classed, (count,), 0, classes))
    if draw(st.booleans()):  # mostly right: attacks then have something to do
        labels = np.nan_to_num(np.asarray(network(images))).argmax(-1)
    return network, jax.random.key(seed), images, labels


def logits(weights, kind, images, x):
    flat = x.reshape(len(x), -1).astype(jnp.float32)
    z = (flat - 0.5) @ weights
    if kind == "steep":
        z = 1e4 * z
    if kind == "constant":
        z = jnp.ones_like(z)
    if kind == "one NaN":
        z = z.at[:, -1].set(jnp.nan)
    if kind == "all NaN":
        z = z * jnp.nan
    if kind == "infinite":
        z = z.at[:, 0].set(jnp.where(z[:, 0] > 0, jnp.inf, -jnp.inf))
    if kind == "NaN once moved":
        clean = images.reshape(len(images), -1).astype(jnp.float32)
        moved = jnp.any(flat[:, None] != clean[None], -1).all(1)
        z = jnp.where(moved[:, None], jnp.nan, z)
    return z


def attacked(attack, given):
    """The result, or `None` where the attack refuses so few classes or such logits by its name."""
    network, key, images, labels = given
    try:
        found = jax.jit(lambda k, x, y: attack(network, k, x, y))(key, images, labels)
    except InputError:
        return None
    assert found.images.dtype == images.dtype
    assert found.images.shape == images.shape
    values = np.asarray(found.images, np.float64)
    assert np.isfinite(values).all()
    assert values.min() >= 0
    assert values.max() <= 1
    z = np.asarray(network(found.images), np.float64)
    # Images of a success may lie on the boundary, which another program rounds otherwise.
    clearly = 1e-4 * (1 + np.abs(np.nan_to_num(z, posinf=0, neginf=0)).max(1))
    assert not (np.asarray(found.success) & (lead(z, labels) > clearly)).any()
    return found


def lead(z, labels):
    """How far the right logit is above all others, or on its side of zero; -inf for NaN or +inf."""
    broken = np.isnan(z).any(1) | (z == np.inf).any(1)
    if z.shape[1] == 1:
        found = z[:, 0] * np.where(labels > 0, 1, -1)
    else:
        others = np.where(np.eye(z.shape[1], dtype=bool)[labels], -np.inf, z).max(1)
        with np.errstate(invalid="ignore"):
            found = z[np.arange(len(z)), labels] - others
    return np.where(broken | np.isnan(found), -np.inf, found)


def sizes(found, images, norm):
    moved = np.asarray(found.images, np.float64) - np.asarray(images, np.float64)
    return np.linalg.norm(moved.reshape(len(moved), -1), ORDER[norm], axis=1)


DRAWN = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


def check_ball(case, eps, given):
    norm, name = case
    found = attacked(in_a_ball(norm, eps)[name], given)
    if found is not None:
        assert sizes(found, given[2], norm).max() <= eps * (1 + SLACK[norm])
        if eps == 0:
            np.testing.assert_array_equal(np.asarray(found.images), np.asarray(given[2]))


def check_smallest(case, given):
    norm, name = case
    found = attacked(smallest(norm)[name], given)
    if found is not None:
        success, distance = np.asarray(found.success), np.asarray(found.distance, np.float64)
        size = sizes(found, given[2], norm)
        np.testing.assert_allclose(size[success], distance[success], rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(size[~success], 0)


RADII = st.sampled_from((0.0, 1e-6, 0.03, 0.3, 1.0))


@settings(max_examples=12, **DRAWN)
@given(case=st.sampled_from(BALLS), eps=RADII, given=inputs())
def test_attacks_in_a_ball(case, eps, given):
    check_ball(case, eps, given)


@settings(max_examples=6, **DRAWN)
@given(case=st.sampled_from(SMALLEST), given=inputs())
def test_attacks_for_the_smallest_perturbation(case, given):
    check_smallest(case, given)


@settings(max_examples=3, **DRAWN)
@given(name=st.sampled_from(sorted(SPATIAL)), given=inputs())
def test_transforms(name, given):
    attacked(SPATIAL[name], given)


@pytest.mark.slow
@pytest.mark.parametrize("case", BALLS, ids="-".join)
def test_every_attack_in_a_ball(case):
    @settings(max_examples=8, **DRAWN)
    @given(eps=RADII, given=inputs())
    def law(eps, given):
        check_ball(case, eps, given)

    law()


@pytest.mark.slow
@pytest.mark.parametrize("case", SMALLEST, ids="-".join)
def test_every_attack_for_the_smallest_perturbation(case):
    @settings(max_examples=8, **DRAWN)
    @given(given=inputs())
    def law(given):
        check_smallest(case, given)

    law()
