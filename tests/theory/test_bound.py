"""The psi-transform against its closed forms, and TRADES' upper bound."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust import theory

NAMES = ("hinge", "sigmoid", "exponential", "logistic")


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_psi_on_a_grid_is_the_closed_form(name):
    surrogate = theory.surrogate(name)
    theta = jnp.linspace(-1, 1, 101)
    eta = (1 + theta) / 2
    optimal, wrong = theory.conditional_risks(surrogate.phi, eta)
    np.testing.assert_allclose(optimal, surrogate.optimal_risk(eta), atol=1e-9)
    np.testing.assert_allclose(wrong, 1, atol=1e-9)  # phi(0) = 1: a wrong sign does no better
    psi = theory.psi_transform(surrogate.phi, theta)
    np.testing.assert_allclose(psi, surrogate.psi(theta), atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_psi_inverse(name):
    surrogate = theory.surrogate(name)
    theta = jnp.linspace(0, 1, 101)
    np.testing.assert_allclose(surrogate.psi_inverse(surrogate.psi(theta)), theta, atol=1e-7)
    # Generalised: nothing above 1, nothing below 0.
    beyond = surrogate.psi_inverse(jnp.array([-0.5, 1.0, 7.0]))
    np.testing.assert_allclose(beyond, [0, 1, 1], atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_psi_takes_the_hull_where_the_difference_is_not_convex():
    # Confidence pays even with the wrong sign, until eta = 0.8: the difference has a dent there.
    def phi(a):
        return jnp.where(a > 0.5, 0.2, jnp.where(a < -0.5, 1.2, 1.0))

    theta = jnp.linspace(-1, 1, 81)
    optimal, wrong = theory.conditional_risks(phi, (1 + theta) / 2)
    before, psi = wrong - optimal, theory.psi_transform(phi, theta)
    bends = np.diff(np.asarray(before), 2)
    assert bends.min() < -1e-3
    assert np.diff(np.asarray(psi), 2).min() > -1e-9
    assert (psi <= before + 1e-12).all()
    dented = jnp.minimum(jnp.abs(theta), 0.3 + jnp.abs(theta) / 2)
    np.testing.assert_allclose(before, dented, atol=1e-12)
    np.testing.assert_allclose(psi, 0.8 * jnp.abs(theta), atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_convex_hull_against_all_chords():
    draw = np.random.default_rng(0)
    x = np.sort(draw.uniform(size=40))
    for y in (draw.normal(size=40), np.abs(x - 0.4) ** 0.5, x**2):
        expected = y.copy()
        for j in range(40):
            for k in range(j + 1, 40):
                inside = np.arange(j, k + 1)
                chord = y[j] + (y[k] - y[j]) * (x[inside] - x[j]) / (x[k] - x[j])
                expected[inside] = np.minimum(expected[inside], chord)
        np.testing.assert_allclose(theory.convex_hull(x, y), expected, atol=1e-12)
    np.testing.assert_allclose(theory.convex_hull(x, x**2), x**2, atol=1e-12)


def random_problem(seed):
    """A discrete distribution on the line, a piecewise constant classifier, and a ball."""
    draw = np.random.default_rng(seed)
    points = np.sort(draw.uniform(size=12))
    mass = draw.dirichlet(np.ones(12))
    eta = draw.beta(*draw.uniform(0.1, 3, 2), 12)
    if seed % 3 == 0:
        eta = np.round(eta)
    breaks = np.sort(draw.uniform(size=6))
    values = draw.normal(size=7) * 10 ** draw.uniform(-2, 1)
    unseen = np.setdiff1d(np.arange(7), np.searchsorted(breaks, points, side="right"))
    values[unseen] = 0  # a ball may reach the decision boundary itself
    return {
        "mass": mass,
        "eta": eta,
        "breaks": breaks,
        "values": values,
        "points": points,
        "eps": draw.uniform(0, 0.3),
        "lam": 10 ** draw.uniform(-2, 1),
    }


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_upper_bound_on_random_distributions(name):
    problems = [random_problem(seed) for seed in range(500)]
    stacked = {k: jnp.asarray(np.stack([p[k] for p in problems])) for k in problems[0]}

    @jax.vmap
    def bounds(p):
        extremes = theory.piecewise_extremes(p["breaks"], p["values"], p["points"], eps=p["eps"])
        weights = {k: p[k] for k in ("mass", "eta", "lam")}
        return theory.trades_bound(extremes, **weights, surrogate=theory.surrogate(name))

    left, middle, right = (np.asarray(side) for side in jax.jit(bounds)(stacked))
    assert (left <= middle + 1e-9).all()
    assert (middle <= right + 1e-9).all()
    assert (middle - left).min() < 0.01  # not only because the right side is enormous
    assert np.unique(left).size > 300


@pytest.mark.usefixtures("float64")
def test_a_score_of_exactly_zero_is_outside_the_theorem():
    """It is an error for both labels, but its surrogate risk may be the least possible."""
    zero = theory.Extremes(*(jnp.zeros(1) for _ in range(3)))
    bound = theory.trades_bound(
        zero,
        mass=jnp.ones(1),
        eta=jnp.array([0.5]),
        lam=1.0,
        surrogate=theory.surrogate("logistic"),
    )
    assert float(bound.excess) == 0.5
    assert float(bound.with_boundary) == 0


@pytest.mark.usefixtures("float64")
def test_the_test_of_the_bound_can_fail():
    """With phi(0) < 1 the second inequality is false, and the check sees it."""
    half = theory.surrogate("hinge")._replace(phi=lambda a: 0.4 * jax.nn.relu(1 - a))
    toy = theory.stripes(eps=0.25)
    found = theory.piecewise_extremes(toy.breaks, 1e-3 * toy.bayes, toy.points, eps=0.25)
    bound = theory.trades_bound(found, mass=toy.mass, eta=toy.eta, lam=1.0, surrogate=half)
    assert float(bound.with_surrogate) < float(bound.with_boundary) - 0.5


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", NAMES)
def test_bound_is_tight(name):
    """TRADES' Theorem 3.2: scores that are all slightly wrong, far from any other point."""
    surrogate = theory.surrogate(name)
    for theta in (0.1, 0.5, 0.9):
        score = jnp.array([-1e-6])
        bound = theory.trades_bound(
            theory.Extremes(score, score, score),
            mass=jnp.ones(1),
            eta=jnp.array([(1 + theta) / 2]),
            lam=1e-14,  # f(x')f(x)/lam = 100: no boundary nearby
            surrogate=surrogate,
        )
        assert float(bound.excess) == pytest.approx(theta, abs=1e-12)
        assert 0 <= float(bound.gap) < 1e-4


@given(
    score=st.floats(-20, 20),
    other=st.floats(-20, 20),
    label=st.sampled_from([-1, 1]),
    lam=st.floats(0.01, 100),
    name=st.sampled_from(NAMES),
)
@settings(max_examples=200, deadline=None)
def test_every_boundary_error_costs_at_least_one(score, other, label, lam, name):
    """The step from the second to the third line of the bound, for one example."""
    with jax.enable_x64(True):
        extremes = theory.visited_extremes(jnp.array([score]), jnp.array([[other]]))
        found = theory.errors(extremes, jnp.array([label]))
        product = jnp.array(score * (extremes.lowest[0] if score > 0 else extremes.highest[0]))
        assert float(theory.surrogate(name).phi(product / lam)) >= float(found.boundary[0])
        assert bool(found.robust[0]) == bool(found.natural[0] | found.boundary[0])


def test_everything_can_be_traced():
    traces = []

    @jax.jit
    def gap(scores, eps, lam):
        traces.append(1)
        x = jnp.linspace(0, 1, 6)
        extremes = theory.piecewise_extremes(jnp.array([0.3, 0.7]), scores, x, eps=eps)
        bounds = [
            theory.trades_bound(
                extremes,
                mass=jnp.full(6, 1 / 6),
                eta=x,
                lam=lam,
                surrogate=theory.surrogate(name),
            ).gap
            for name in NAMES
        ]
        return jnp.stack(bounds)

    values = [gap(jnp.array([-1.0, 1.0, s]), s / 9, s) for s in (0.5, 1.0, 2.0)]
    assert len(traces) == 1
    assert np.isfinite(np.stack(values)).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="surrogate name 'square' is unknown; choose from"):
        theory.surrogate("square")
    with pytest.raises(ValueError, match="theta must go from -1 to 1, got 0.0 to 1.0"):
        theory.psi_transform(jnp.exp, jnp.linspace(0, 1, 5))
    with pytest.raises(ValueError, match="x must rise"):
        theory.convex_hull([0.0, 0.0], [1.0, 2.0])
