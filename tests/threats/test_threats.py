"""Threats: their four verbs stay in the set and the box, for shared and per-example radii."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust import threats

SHAPE = (5, 6, 4, 3)
NORMS = {
    "linf": (threats.linf, lambda d: np.abs(d).max(1), 1e-7),
    "l2": (threats.l2, lambda d: np.linalg.norm(d, axis=1), 1e-6),
    "l1": (threats.l1, lambda d: np.abs(d).sum(1), 3e-6),
}
EPS = {"linf": 0.1, "l2": 0.7, "l1": 3.0}


def inside(name, x, z, eps):
    """The perturbed images are in the box and within eps, allowing for float32 rounding."""
    _, norm, slack = NORMS[name]
    moved = np.asarray(x + z)
    assert moved.min() >= 0
    assert moved.max() <= 1
    sizes = norm(np.asarray(moved - np.asarray(x), np.float64).reshape(len(x), -1))
    assert (sizes <= np.asarray(eps) * (1 + slack) + slack).all(), sizes


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_init_and_project_stay_inside(name, per_example, key):
    make = NORMS[name][0]
    eps = EPS[name] * (jnp.linspace(0, 1, 5) if per_example else 1.0)
    verbs = threats.batched(make(eps), 5)
    images_key, noise_key = jax.random.split(key)
    x = jax.random.uniform(images_key, SHAPE)
    x = jnp.where(x < 0.3, 0.0, jnp.where(x > 0.8, 1.0, x))  # many pixels on the walls
    inside(name, x, verbs.init(jax.random.split(key, 5), x), eps)
    for scale in (0.01, 1.0, 100.0):
        z = verbs.project(scale * jax.random.normal(noise_key, SHAPE), x)
        inside(name, x, z, eps)
        np.testing.assert_allclose(verbs.project(z, x), z, atol=2e-6, err_msg="idempotent")
    assert np.abs(np.asarray(z[-1])).max() > 0.01


@pytest.mark.parametrize("name", NORMS)
def test_random_starts_fill_the_ball(name, key):
    make, norm, _ = NORMS[name]
    x = jnp.full((200, 4, 4, 1), 0.5)
    z = threats.batched(make(0.2), 200).init(jax.random.split(key, 200), x)
    sizes = norm(np.asarray(z).reshape(200, -1))
    # The radius of a uniform point of a 16-dimensional ball is U^(1/16) of the full one.
    assert np.median(sizes) / 0.2 == pytest.approx(0.5 ** (1 / 16), abs=0.015)
    assert sizes.max() <= 0.2 + 1e-6
    assert abs(float(z.mean())) < 0.2 / 16


@pytest.mark.parametrize("name", NORMS)
def test_ascent_has_the_stated_length_and_direction(name, key):
    make, norm, _ = NORMS[name]
    x = jnp.full(SHAPE, 0.5)
    verbs = threats.batched(make(EPS[name]), 5)
    grad = jax.random.normal(key, SHAPE) * 1e-25
    z = verbs.ascend(jnp.zeros(SHAPE), grad, 0.03)
    np.testing.assert_allclose(norm(np.asarray(z).reshape(5, -1)), 0.03, rtol=1e-5)
    assert (jnp.sum(z * grad * 1e25, axis=(1, 2, 3)) > 0).all()
    assert (verbs.ascend(jnp.zeros(SHAPE), jnp.zeros_like(x), 0.03) == 0).all()
    each = verbs.ascend(jnp.zeros(SHAPE), grad, jnp.linspace(0, 1, 5))
    assert (each[0] == 0).all()


def test_an_l1_step_moves_its_share_of_the_values():
    grad = jnp.linspace(-1, 0.9, 100).reshape(1, 10, 10, 1)
    verbs = threats.batched(threats.l1(3.0, sparsity=0.05), 1)
    z = verbs.ascend(jnp.zeros_like(grad), grad, 0.5)
    np.testing.assert_allclose(z.ravel()[:5], -0.1, rtol=1e-6)
    assert (z.ravel()[5:] == 0).all()


@pytest.mark.parametrize("name", NORMS)
def test_a_point_at_the_radius_stays_bit_for_bit(name):
    verbs = threats.batched(NORMS[name][0](0.5), 1)
    x = jnp.full((1, 4, 4, 1), 0.25)
    z = jnp.zeros_like(x).at[0, 1, 2].set(0.5)
    np.testing.assert_array_equal(verbs.project(z, x), z)


@pytest.mark.parametrize("name", NORMS)
def test_zero_radius_returns_the_image_bit_for_bit(name, key):
    verbs = threats.batched(NORMS[name][0](0.0), 5)
    x = jax.random.uniform(key, SHAPE)
    z = verbs.project(jax.random.normal(key, SHAPE), x)
    assert (verbs.apply(z, x) == x).all()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), eps=st.floats(0.01, 20), scale=st.floats(1e-3, 1e3))
def test_l1_projection_is_the_nearest_point(seed, eps, scale):
    """Optimality: |u - z| cannot be reduced by moving l_1 mass between any two coordinates."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=24)
    u = scale * rng.standard_normal(24)
    with jax.enable_x64(True):
        u_, x_ = jnp.asarray(u), jnp.asarray(x)
        z = np.asarray(u_ + threats.l1_box_correction(u_, x_, eps))
    room = np.where(u >= 0, 1 - x, x)
    size, target = np.abs(z), np.abs(u)
    assert np.abs(z).sum() <= eps * (1 + 1e-9)
    assert (size <= room + 1e-12).all()
    assert (np.sign(z) * np.sign(u) >= 0).all()
    # One threshold lam explains every coordinate.
    free = (size > 1e-12) & (size < room - 1e-12)
    lams = (target - size)[free]
    if lams.size:
        assert np.ptp(lams) < 1e-9 * max(1, scale)
        lam = lams.mean()
        assert lam > -1e-9
        assert (target[size <= 1e-12] <= lam + 1e-8 * max(1, scale)).all()
        full = size >= room - 1e-12
        assert (target[full] >= (lam + room - 1e-8 * max(1, scale))[full]).all()
    # What is left unused is only left where nothing more could be gained.
    if np.abs(z).sum() < eps * (1 - 1e-6):
        np.testing.assert_allclose(size, np.minimum(target, room), atol=1e-9)


def test_compose_moves_one_after_the_other(key):
    both = threats.compose(threats.linf(0.1), threats.l2(0.3))
    verbs = threats.batched(both, 5)
    x = jax.random.uniform(key, SHAPE)
    z = verbs.init(jax.random.split(key, 5), x)
    assert isinstance(z, tuple)
    first = threats.batched(threats.linf(0.1), 5).apply(z[0], x)
    inside("linf", x, z[0], 0.1)
    inside("l2", first, z[1], 0.3)
    moved = verbs.ascend(z, z, (0.0, 1.0))
    assert (moved[0] == z[0]).all()
    assert not (moved[1] == z[1]).all()
    big = jax.tree.map(lambda a: 100 * a, z)
    projected = verbs.project(big, x)
    inside("linf", x, projected[0], 0.1)
    inside("l2", x + projected[0], projected[1], 0.3)


def test_radii_are_leaves_and_sweeps_do_not_retrace():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def project(threat, z, x):
        return threats.batched(threat, 5).project(z, x)

    x = jnp.full(SHAPE, 0.5)
    sizes = [float(project(threats.linf(e), jnp.ones(SHAPE), x).max()) for e in (0.1, 0.2, 0.3)]
    np.testing.assert_allclose(sizes, [0.1, 0.2, 0.3], rtol=1e-6)
    assert len(jax.tree.leaves(threats.compose(threats.l1(1.0), threats.l2(2.0)))) == 2


def test_a_radius_per_example_is_named_as_a_range():
    assert threats.described(threats.l2(jnp.array([0.5, 0.25, 1.0]))) == "l2 eps 0.25 to 1"


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), "8/255", [[0.1]]])
@pytest.mark.parametrize("name", NORMS)
def test_bad_radii_are_refused(name, eps):
    with pytest.raises(ValueError, match="eps must be one number or one per example"):
        NORMS[name][0](eps)


def test_the_usual_mistakes_have_clear_errors():
    with pytest.raises(ValueError, match=r"at most 1 .image units: 8/255, not 8.; got 8"):
        threats.linf(8)
    with pytest.raises(ValueError, match=r"radius of Linf has shape \(3,\)"):
        threats.batched(threats.linf(jnp.full(3, 0.1)), 5)
    with pytest.raises(ValueError, match="sparsity must be a share"):
        threats.l1(1.0, sparsity=0.0)
    with pytest.raises(ValueError, match="at least one threat"):
        threats.compose()
