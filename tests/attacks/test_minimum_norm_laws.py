"""Laws of the minimum-norm attacks: one example is one problem, and nothing is claimed unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, evaluation, threats
from jaxrobust.inputs import InputError
from tests.attacks.minimum_norm import KEY, size

# Higher than wide, one channel, walls of the box; two classes.
IMAGES = jax.random.uniform(jax.random.key(1), (8, 5, 3, 1)).at[:, 0].set(0).at[:, 4].set(1)
WEIGHTS = jax.random.normal(jax.random.key(2), (1, 5, 3, 1))
BIAS = jnp.sum((IMAGES - 0.5) * WEIGHTS, (1, 2, 3)).mean()


def network(x):
    score = jnp.tanh(jnp.sum((x - 0.5) * WEIGHTS, (1, 2, 3)) - BIAS)
    return jnp.stack([jnp.zeros_like(score), score], -1)


LABELS = np.array(network(IMAGES).argmax(-1))
LABELS[0] = 1 - LABELS[0]  # an error as it is
KEYS = jax.random.split(KEY, len(IMAGES))
ATTACKS = {
    "fmn l0": ("l0", lambda *a, **k: attacks.fmn(*a, norm="l0", steps=20, **k)),
    "fmn l1": ("l1", lambda *a, **k: attacks.fmn(*a, norm="l1", steps=20, escape=True, **k)),
    "fmn l2": ("l2", lambda *a, **k: attacks.fmn(*a, norm="l2", steps=20, escape=True, **k)),
    "fmn linf": ("linf", lambda *a, **k: attacks.fmn(*a, norm="linf", steps=20, **k)),
    "ddn": ("l2", lambda *a, **k: attacks.ddn(*a, steps=20, **k)),
    "pdpgd l0": ("l0", lambda *a, **k: attacks.pdpgd(*a, norm="l0", steps=20, **k)),
    "pdpgd linf": ("linf", lambda *a, **k: attacks.pdpgd(*a, norm="linf", steps=20, **k)),
    "sigma_zero": ("l0", lambda *a, **k: attacks.sigma_zero(*a, steps=20, **k)),
    "deepfool": ("linf", lambda *a, **k: attacks.deepfool(*a, norm="linf", steps=20, **k)),
    "superdeepfool": (
        "l2",
        lambda *a, **k: attacks.superdeepfool(*a, steps=3, deepfool_steps=5, **k),
    ),
}
TRACED = {
    "fmn l2": ("gamma", 0.3), "ddn": ("init_norm", 0.3), "pdpgd linf": ("primal_lr", 0.02),
    "sigma_zero": ("step_size", 1.0), "deepfool": ("overshoot", 0.5),
    "superdeepfool": ("overshoot", 0.5),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_returned_is_what_was_seen(name):
    """In the box, at the stated distance, misclassified; and each example by itself."""
    norm, attack = ATTACKS[name]

    @jax.jit
    def run(keys, x, y, scale=1.0):
        return attack(lambda x: scale * network(x), keys, x, y)

    found = run(KEYS, IMAGES, LABELS)
    success = np.asarray(found.success)
    assert success.sum() >= 5
    assert found.distance[0] == 0
    np.testing.assert_array_equal(found.images[0], IMAGES[0])
    moved = np.asarray(found.images, np.float64) - np.asarray(IMAGES, np.float64)
    np.testing.assert_allclose(
        size(moved, norm)[success], found.distance[success], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(moved[~success], 0)
    np.testing.assert_array_equal(found.perturbation[~success], 0)
    assert 0 <= float(found.images.min()) <= float(found.images.max()) <= 1
    logits = np.asarray(network(found.images))
    np.testing.assert_array_equal(logits.argmax(-1) != LABELS, success)
    own = logits[np.arange(8), LABELS]
    np.testing.assert_allclose(found.loss, logits.sum(-1) - 2 * own, atol=1e-5)
    # Another order, and one example eight times.
    order = np.random.default_rng(0).permutation(8)
    other = run(KEYS[order], IMAGES[order], LABELS[order])
    np.testing.assert_array_equal(other.images, found.images[order])
    alone = run(KEYS[jnp.full(8, 3)], IMAGES[jnp.full(8, 3)], LABELS[np.full(8, 3)])
    np.testing.assert_array_equal(alone.distance, np.full(8, found.distance[3]))
    # Constant logits are never fooled; ties go to the first class.
    constant = run(KEYS, IMAGES, LABELS, 0.0)
    np.testing.assert_array_equal(constant.distance, np.where(LABELS == 1, 0, np.inf))
    np.testing.assert_array_equal(constant.success, LABELS == 1)
    np.testing.assert_array_equal(constant.images, IMAGES)
    np.testing.assert_array_equal(constant.loss, np.zeros(8))


@pytest.mark.parametrize("name", TRACED)
def test_numbers_are_traced_and_may_differ_per_example(name):
    parameter, value = TRACED[name]
    traces = []

    @jax.jit
    def run(number):
        traces.append(name)
        return ATTACKS[name][1](network, KEYS, IMAGES, LABELS, **{parameter: number}).distance

    numbers = np.linspace(value, 0.5 * value, 8, dtype=np.float32)
    each, first, last = run(numbers), run(np.full_like(numbers, value)), run(numbers[-1:].repeat(8))
    np.testing.assert_allclose(each[1:2], run(numbers[1:2].repeat(8))[1:2], rtol=1e-6)
    np.testing.assert_allclose(each[7], last[7], rtol=1e-6)
    assert not np.array_equal(first, last)
    assert traces == [name]


def test_an_evaluation_depends_on_neither_batch_size_nor_devices():
    bound = {
        "ddn": attacks.DDN(threat=threats.l2(0.3), init_norm=0.3, steps=20),
        "superdeepfool": attacks.SuperDeepFool(threat=threats.l2(0.3), steps=2, deepfool_steps=4),
    }
    few, many = (
        evaluation.evaluate(network, IMAGES, LABELS, attacks=bound, batch_size=size)
        for size in (3, 8)
    )
    for name in bound:
        np.testing.assert_array_equal(few.masks[name], many.masks[name])
        np.testing.assert_allclose(
            few.adversarial_images[name], many.adversarial_images[name], atol=1e-6
        )
    assert 0 < few.masks["ddn"].sum() < few.masks["clean"].sum()


def test_a_start_that_is_not_adversarial_is_ignored():
    outwards = jnp.sign(jnp.where(LABELS == 1, 1, -1))[:, None, None, None] * jnp.sign(WEIGHTS)
    start = jnp.where(jnp.arange(8)[:, None, None, None] < 4, 0.1, -1.0) * outwards

    @jax.jit
    def run(start):
        options = {"norm": "l2", "steps": 20, "escape": True}
        return attacks.fmn(network, KEYS, IMAGES, LABELS, start=start, **options)

    without = attacks.fmn(network, KEYS, IMAGES, LABELS, norm="l2", steps=20, escape=True)
    found = run(start)
    np.testing.assert_allclose(found.distance[:4], without.distance[:4], rtol=1e-5)
    assert not np.allclose(found.distance[4:], without.distance[4:], rtol=1e-5)
    assert found.success.all()
    # Far outside of the box is as far as its walls.
    clipped = jnp.clip(IMAGES + 100 * start, 0, 1) - IMAGES
    np.testing.assert_array_equal(run(100 * start).distance, run(clipped).distance)


def test_the_published_form_stalls_on_the_walls_of_the_box_and_escape_does_not():
    """Two values: the near one meets the wall, so that each step is undone."""

    def corner(x):
        score = 3 * x[:, 0, 0, 0] + x[:, 0, 1, 0] - 0.5
        return jnp.stack([jnp.zeros_like(score), -score], -1)

    images = jnp.array([0.1, 0.9]).reshape(1, 1, 2, 1)
    labels = np.zeros(1, int)
    plain, cured = (
        attacks.fmn(corner, KEY, images, labels, norm="l2", steps=200, escape=escape)
        for escape in (False, True)
    )
    # The near value to its wall, then the other one below a half.
    np.testing.assert_allclose(cured.distance, np.hypot(0.1, 0.4), rtol=0.01)
    assert not plain.success.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *a: attacks.fmn(*a, norm="l0", escape=True), "escape must be False for norm 'l0'"),
        (lambda *a: attacks.fmn(*a, start=np.zeros((8, 3, 5, 1))), r"start .*\(8, 3, 5, 1\)"),
        (lambda *a: attacks.pdpgd(*a, start=np.full(IMAGES.shape, np.nan)), "start .*nan"),
        (lambda *a: attacks.pdpgd(*a, steps=1), "steps must be an integer of at least 2, got 1"),
        (lambda *a: attacks.ddn(*a, levels=1), "levels must be an integer of at least 2"),
        (lambda *a: attacks.ddn(*a, gamma=np.ones(3)), r"gamma .*here \[8\], got shape \(3,\)"),
        (lambda *a: attacks.sigma_zero(*a, sigma=0), "sigma must be above 0"),
        (lambda *a: attacks.deepfool(*a, norm="l1"), "norm must be 'l2' or 'linf', got 'l1'"),
        (lambda *a: attacks.fmn(*a, targets=np.full(8, 2)), r"targets must be .*0\.\.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(network, KEY, IMAGES, LABELS)
