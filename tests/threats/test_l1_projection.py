"""The projection onto l_1 ball and box against recorded exact points and laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.threats import l1_box_correction

project = jax.jit(jax.vmap(l1_box_correction, in_axes=(0, 0, None)))


@pytest.mark.parametrize("number", range(3))
def test_recorded_points(golden, number):
    data = golden("attack_units")
    x, u, eps = data["l1/x"], data["l1/y"], data["l1/eps"][number]
    correction = np.asarray(project(u, x, eps))
    np.testing.assert_allclose(correction, data[f"l1/delta_reference_{number}"], rtol=0, atol=2e-5)
    moved = u.astype(np.float64) + correction
    exact = data[f"l1/perturbation_exact64_{number}"]
    assert (np.abs(moved - exact).max(1) <= 1e-6 * np.abs(exact).max(1)).all()
    assert (np.abs(moved).sum(1) <= eps * (1 + 1e-5) + 1e-6).all()


def test_recorded_points_in_float64(golden, float64):
    data = golden("attack_units")
    x, u = data["l1/x"].astype(np.float64), data["l1/y"].astype(np.float64)
    for number, eps in enumerate(data["l1/eps"]):
        moved = u + project(u, x, eps)
        exact = data[f"l1/perturbation_exact64_{number}"]
        np.testing.assert_allclose(moved, exact, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("size", [3, 75, 3072])
def test_no_point_of_the_set_is_nearer(size):
    random = np.random.default_rng(size)
    x = random.uniform(size=(8, size)).astype(np.float32)
    x[:, ::3] = np.round(x[:, ::3])  # values on the walls
    u = random.normal(size=x.shape).astype(np.float32) * np.float32(2)
    eps = np.float32(0.1 * size**0.5)
    moved = np.asarray(u + project(u, x, eps), np.float64)
    assert (np.abs(moved).sum(1) <= eps * (1 + 1e-5) + 1e-6).all()
    assert (x + moved).min() >= -5e-7
    assert (x + moved).max() <= 1 + 5e-7
    # Optimality: the way to any point of the set makes no acute angle with the way out.
    for _ in range(20):
        other = random.laplace(size=x.shape) * (random.uniform(size=x.shape) < 5 / size)
        other *= eps / np.maximum(np.abs(other).sum(1, keepdims=True), eps)
        other = np.clip(x + other, 0, 1) - x
        assert (((u - moved) * (other - moved)).sum(1) <= 1e-5 * size).all()


def test_points_of_the_set_stay_and_radius_zero_returns_to_the_centre():
    x = jnp.array([[0.0, 0.5, 1.0, 0.2]])
    inside = jnp.array([[0.1, -0.2, 0.0, 0.0]])
    assert (project(inside, x, 0.5) == 0).all()
    far = jnp.array([[3.0, -1e-8, 7.3, -0.2]])
    np.testing.assert_array_equal(far + project(far, x, 0.0), jnp.zeros_like(x))
    assert (project(jnp.zeros_like(x), x, 0.0) == 0).all()
