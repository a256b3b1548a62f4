"""Robust error = natural error + boundary error, where the worst case is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import theory

NORMS = ("linf", "l2", "l1")
ORDER = {"linf": np.inf, "l2": 2, "l1": 1}


def problem(seed, n=400, d=5):
    draw = np.random.default_rng(seed)
    x, weights = draw.normal(size=(n, d)), draw.normal(size=d)
    return jnp.asarray(weights), 0.1, jnp.asarray(x), jnp.asarray(draw.choice([-1, 1], n))


def exact(found):
    """The identity and the exclusion, per example and without a tolerance."""
    natural, boundary, robust = (np.asarray(v) for v in found)
    np.testing.assert_array_equal(robust, natural | boundary)
    assert not (natural & boundary).any()
    assert robust.sum() == natural.sum() + boundary.sum()
    return natural, boundary, robust


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_linear_identity_is_exact(norm, x64):
    with jax.enable_x64(x64):
        weights, bias, x, y = problem(0)
        for eps in (0.0, 0.05, 0.3, 2.0):
            found = theory.linear_extremes(weights, bias, x, norm=norm, eps=eps)
            natural, boundary, _ = exact(theory.errors(found, y))
            assert 0 < natural.sum() < len(y)
            assert (boundary.sum() > 0) == (eps > 0)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("norm", NORMS)
def test_linear_worst_case_is_reached_and_never_passed(norm):
    weights, bias, x, y = problem(1)
    eps = 0.3
    found = theory.linear_extremes(weights, bias, x, norm=norm, eps=eps)
    worst = theory.linear_worst_case(weights, x, y, norm=norm, eps=eps)
    moved = np.linalg.norm(np.asarray(worst - x), ORDER[norm], axis=1)
    np.testing.assert_allclose(moved, eps)
    least = jnp.where(y > 0, found.lowest, -found.highest)
    np.testing.assert_allclose(
        (worst @ weights + bias) * y.astype(x.dtype), least, rtol=0, atol=1e-12
    )
    draw = np.random.default_rng(2)
    for _ in range(20):
        delta = draw.laplace(size=x.shape)
        delta *= eps / np.linalg.norm(delta, ORDER[norm], axis=1, keepdims=True)
        scores = (x + delta) @ weights + bias
        assert (scores >= found.lowest - 1e-12).all()
        assert (scores <= found.highest + 1e-12).all()


@pytest.mark.usefixtures("float64")
def test_piecewise_extremes_are_those_of_a_fine_scan():
    draw = np.random.default_rng(3)
    breaks, values = np.sort(draw.uniform(size=9)), draw.normal(size=10)
    x, eps = draw.uniform(size=50), 0.11
    found = theory.piecewise_extremes(breaks, values, x, eps=eps)
    score = values[np.searchsorted(breaks, x, side="right")]
    np.testing.assert_array_equal(found.score, score)
    scanned = x[:, None] + np.linspace(-eps, eps, 20_001)
    scanned = values[np.searchsorted(breaks, scanned, side="right")]
    np.testing.assert_array_equal(found.lowest, scanned.min(1))
    np.testing.assert_array_equal(found.highest, scanned.max(1))
    exact(theory.errors(found, jnp.asarray(draw.choice([-1, 1], 50))))


def test_piecewise_intervals_are_closed_and_pieces_open_on_the_right():
    found = theory.piecewise_extremes([0.5], [-1.0, 1.0], [0.25, 0.5, 0.75], eps=0.25)
    np.testing.assert_array_equal(found.score, [-1, 1, 1])
    np.testing.assert_array_equal(found.highest, [1, 1, 1])  # 0.25 + 0.25 reaches the break
    np.testing.assert_array_equal(found.lowest, [-1, -1, 1])  # 0.75 - 0.25 does not pass it


@pytest.mark.parametrize("eps", [0.5, 0.25, 0.1, 0.05])
def test_stripes_have_the_errors_of_the_paper(eps):
    toy = theory.stripes(eps=eps)
    rules = {"bayes": toy.bayes, "all one": jnp.ones_like(toy.bayes)}
    expected = {"bayes": (0, 1, 1), "all one": (0.5, 0, 0.5)}
    for name, values in rules.items():
        found = theory.piecewise_extremes(toy.breaks, values, toy.points, eps=eps)
        risks = theory.risks(found, mass=toy.mass, eta=toy.eta)
        np.testing.assert_allclose(risks, expected[name], atol=1e-6, err_msg=name)


def test_zero_scores_and_tiny_scores():
    # A product of these underflows in float32; their signs do not.
    found = theory.Extremes(*(jnp.array([v]) for v in (1e-30, 1e-30, 2e-30)))
    assert not bool(theory.near_boundary(found)[0])
    zero = theory.Extremes(*(jnp.zeros(1) for _ in range(3)))
    for label in (-1, 1):
        natural, boundary, robust = exact(theory.errors(zero, jnp.array([label])))
        assert (natural, boundary, robust) == (True, False, True)


def test_bad_arguments():
    with pytest.raises(ValueError, match="norm must be 'linf', 'l2' or 'l1', got 'l3'"):
        theory.linear_extremes([1.0], 0.0, [[1.0]], norm="l3", eps=0.1)
    with pytest.raises(ValueError, match="norm must be"):
        theory.linear_worst_case([1.0], [[1.0]], [1], norm="l0", eps=0.1)
    with pytest.raises(ValueError, match="1 / eps must be an even integer, got eps=0.3"):
        theory.stripes(eps=0.3)
    with pytest.raises(ValueError, match="values must be one longer than breaks, got 1 and 1"):
        theory.piecewise_extremes([0.5], [1.0], [0.0], eps=0.1)
