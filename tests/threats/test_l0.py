"""The l_0 threat: exact counts, the nearest point, and who takes it."""

import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, evaluation, objectives, threats
from jaxrobust.inputs import InputError

SHAPE = (5, 6, 4, 3)


def changed(z):
    return np.count_nonzero(np.asarray(z).reshape(len(z), -1), axis=1)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_starts_and_projections_change_as_many_values_as_allowed(key, dtype):
    eps = jnp.asarray([0.0, 1.0, 7.9, 72.0, 100.0])
    verbs = threats.batched(threats.l0(eps), 5)
    x = jax.random.uniform(key, SHAPE).astype(dtype)
    x = x.at[:, 0].set(0).at[:, 1].set(1)
    start = verbs.init(jax.random.split(key, 5), x)
    assert (changed(start) <= np.floor(eps)).all()
    assert changed(start)[1] == 1
    assert changed(start)[3] > 60
    for scale in (1e-20, 0.01, 1.0, 100.0):
        z = verbs.project((scale * jax.random.normal(key, SHAPE)).astype(dtype), x)
        assert (changed(z) <= np.floor(eps)).all()
        np.testing.assert_array_equal(verbs.project(z, x), z)
        moved = np.asarray(verbs.apply(z, x), np.float32)
        assert moved.min() >= 0
        assert moved.max() <= 1
    assert changed(z)[1:3].tolist() == [1, 7]
    np.testing.assert_array_equal(verbs.apply(z, x)[0], x[0])


def test_equal_values_do_not_exceed_the_count(key):
    x = jnp.full((2, 3, 1), 0.5)
    z = threats.l0(2).project(jnp.full((2, 3, 1), -0.25), x)
    assert np.asarray(z).ravel().tolist() == [-0.25, -0.25, 0, 0, 0, 0]


def test_the_projection_is_the_nearest_point():
    rng = np.random.default_rng(0)
    for scale in (0.1, 1.0, 10.0):
        x, z = rng.uniform(size=6), scale * rng.normal(size=6)
        found = np.asarray(
            threats.l0(2).project(
                jnp.asarray(z, jnp.float32).reshape(2, 3, 1),
                jnp.asarray(x, jnp.float32).reshape(2, 3, 1),
            )
        ).ravel()
        inside = np.clip(z, -x, 1 - x)
        best = min(
            np.square(z - np.where(np.isin(np.arange(6), pair), inside, 0)).sum()
            for pair in itertools.combinations(range(6), 2)
        )
        np.testing.assert_allclose(np.square(z - found).sum(), best, rtol=1e-4)


def test_a_step_has_the_stated_length_and_direction():
    grad = 1e-30 * jnp.asarray([[-2.0], [1.0]])[:, None]
    step = threats.l0(1).ascend(jnp.zeros_like(grad), grad, 0.5)
    np.testing.assert_allclose(step.ravel(), [-0.5, 0.25], rtol=1e-6)
    assert (threats.l0(1).ascend(step, jnp.zeros_like(grad), 0.5) == step).all()
    assert threats.default_step(threats.l0(7), 20) == 100
    assert threats.norm_of(threats.l0(7)) == "l0"
    assert threats.described(threats.l0(7)) == "l0 eps 7"


def test_pgd_finds_the_worst_values_of_a_linear_network(key):
    """The values with the largest products of weight and room, moved to the wall."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(24, 2)).astype(np.float32)
    x = jnp.asarray(rng.uniform(size=(8, 2, 4, 3)), jnp.float32)
    labels = np.asarray(x.reshape(8, 24) @ weights).argmax(1)
    slope = weights[:, 1 - labels].T - weights[:, labels].T
    flat = np.asarray(x).reshape(8, 24)
    gain = np.where(slope > 0, slope * (1 - flat), -slope * flat)

    def network(x):
        return x.reshape(len(x), 24) @ weights

    for eps in (1, 4, 24):
        attack = attacks.PGD(threat=threats.l0(eps), steps=20, loss=losses_margin)
        found = attack(network, key, x, labels)
        best = np.sort(gain, 1)[:, -eps:].sum(1)
        clean = losses_margin(network(x), labels)
        assert (changed(found.images - x) <= eps).all()
        np.testing.assert_allclose(found.loss - clean, best, rtol=0.02)


def losses_margin(logits, labels):
    """The difference of two logits."""
    own = jnp.arange(2)[None] == jnp.asarray(labels)[:, None]
    return jnp.sum(jnp.where(own, -logits, logits), 1)


@pytest.mark.parametrize("eps", [-1, np.nan, np.inf, "3", [[1]]])
def test_bad_counts_are_refused(eps):
    with pytest.raises(InputError, match=r"eps must be one number or one per example"):
        threats.l0(eps)


@pytest.mark.parametrize("eps", [0.1, [3, 0.5]])
def test_a_share_of_the_values_is_no_count(eps):
    """Rounded down it would be nothing, and every network robust."""
    with pytest.raises(InputError, match=r"eps must be a number of values, 0 or at least 1"):
        threats.l0(eps)


def test_who_cannot_take_it_says_so(key):
    x, labels = jnp.full((2, 3, 3, 1), 0.5), np.zeros(2, int)

    def network(x):
        return x.reshape(len(x), 9)[:, :4]

    for attack in (attacks.apgd, attacks.fab, attacks.square, attacks.min_margin):
        with pytest.raises(InputError, match="norm must be .*got 'l0'"):
            attack(network, key, x, labels, norm="l0", eps=3)
    with pytest.raises(InputError, match="norm must be one of linf, l2, l1, got 'l0'"):
        evaluation.autoattack(network, x, labels, norm="l0", eps=3)
    with pytest.raises(InputError, match="APGD must be the ball .*got l0 eps 3"):
        evaluation.protocol("standard", threat=threats.l0(3), classes=4)

    def mixed(x):
        return SimpleNamespace(log_probs=network(x))

    objective = objectives.adaptive_smoothing(steps=1, copies=1)
    batch = objectives.Batch(x, jnp.asarray(labels))
    with pytest.raises(InputError, match="threat must be linf, l2 or l1, got l0 eps 3"):
        objective.inner(mixed, key, batch, threats.l0(3))
