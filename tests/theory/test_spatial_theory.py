"""The permutation setting: closed forms against simulation, and the trade-off that they show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import theory


@pytest.mark.slow
@pytest.mark.parametrize(("p", "c", "dim"), [(0.9, 2.0, 100), (0.7, 1.0, 9), (0.95, 0.5, 3)])
@pytest.mark.parametrize("eps", [None, 0.15])
def test_closed_forms_agree_with_simulation(p, c, dim, eps, key):
    toy, count = theory.SpatialToy(p=p, c=c, dim=dim), 40_000
    rules = jnp.array([0.0, 0.5, 2.0, 8.0])

    @jax.jit
    def simulate(key):
        sample_key, order_key = jax.random.split(key)
        x, y = toy.sample(sample_key, count)
        kinds = (x, toy.attack(x, y, eps=eps), toy.permute(order_key, x))
        return jnp.stack([
            jnp.stack([jnp.mean(toy.score(kind, w) * y > 0) for w in rules]) for kind in kinds
        ])  # fmt: skip

    expected = np.stack(toy.accuracies(rules, eps=eps))
    noise = np.sqrt(np.maximum(expected * (1 - expected), 1e-4) / count)
    assert (np.abs(np.asarray(simulate(key)) - expected) < 4.5 * noise).all()


def test_the_attack_is_the_worst_of_its_ball(key):
    toy = theory.SpatialToy(dim=5)
    x, y = toy.sample(key, 50)
    worst = toy.score(toy.attack(x, y, eps=0.3), 1.5) * y
    other = x[None] + jax.random.uniform(key, (200, *x.shape), minval=-0.3, maxval=0.3)
    assert (toy.score(other, 1.5) * y[None] >= worst[None] - 1e-5).all()
    np.testing.assert_allclose(
        toy.attack(x, y) - x, -toy.eps() * y[:, None] * jnp.ones((1, 6)), atol=1e-6
    )


def test_a_permutation_moves_coordinates_and_keeps_values(key):
    toy = theory.SpatialToy(dim=6)
    x, _ = toy.sample(key, 500)
    moved = toy.permute(key, x)
    np.testing.assert_allclose(jnp.sort(moved, 1), jnp.sort(x, 1))
    first = (moved[:, :1] == x).mean(0)
    np.testing.assert_allclose(first, 1 / 7, atol=0.07)


def test_more_weight_trades_permuted_for_attacked_accuracy():
    w = jnp.linspace(0, 20, 401)
    clean, attacked, permuted = theory.SpatialToy().accuracies(w)
    rises = jnp.diff(attacked) > -1e-6
    falls = jnp.diff(permuted)[w[1:] > 0.2] < 0
    assert rises.all()
    assert falls.all()
    assert attacked[-1] - attacked[0] > 0.8
    assert permuted[0] - permuted[-1] > 0.35
    assert clean.max() - clean.min() < 0.09


def test_tsipras_bound_holds_and_large_dimensions_reach_the_limit():
    w = jnp.linspace(0, 30, 200)
    for p in (0.6, 0.9, 0.99):
        toy = theory.SpatialToy(p=p, dim=1000)
        clean, attacked, _ = toy.accuracies(w)
        assert (attacked <= toy.attacked_bound(clean) + 1e-6).all()
    far = theory.SpatialToy(dim=10**8).accuracies(w).permuted
    np.testing.assert_allclose(far, theory.SpatialToy().permuted_limit(w), atol=2e-3)
