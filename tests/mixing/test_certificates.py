"""Certified radii: the authors' values, and no attack inside a radius changes the class."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats.norm import cdf
from scipy.stats import binom

from jaxrobust import attacks, losses, mixing, threats

SIZE = (3, 3, 1)


def test_radii_of_the_authors_code(golden, float64):
    data = golden("mix_public")
    probs, alphas, sigmas = (
        jnp.asarray(data[f"cert/{k}"]) for k in ("probs_rob", "alpha", "sigma")
    )
    right = data["cert/rob_correct"]
    labels = jnp.where(right, probs.argmax(-1), (probs.argmax(-1) + 1) % 10)
    top = jax.lax.top_k(probs, 2)[0]

    def lipschitz(sigma, alpha):
        constant = mixing.smoothed_lipschitz(sigma)
        return mixing.certified_radius_lipschitz(
            probs, alpha=alpha, lipschitz=constant, labels=labels
        )

    def smoothing(sigma, alpha):
        radius = mixing.certified_radius_smoothing(top[:, 0], top[:, 1], alpha=alpha, sigma=sigma)
        return jnp.where(right, radius, 0.0)

    for function, name in ((lipschitz, "lip_radius"), (smoothing, "rs_radius")):
        over_alpha = jax.vmap(function, (None, 0))
        radii = jax.vmap(over_alpha, (0, None))(sigmas, alphas)
        np.testing.assert_allclose(radii, data[f"cert/{name}"], rtol=1e-11, atol=1e-12)


def test_lipschitz_radius_by_its_definition(float64):
    probs = jax.nn.softmax(2 * jax.random.normal(jax.random.key(1), (20, 5), jnp.float64))
    constants = jnp.linspace(0.5, 2.0, 5)
    alpha = jnp.linspace(0.4, 1.0, 20)
    ours = mixing.certified_radius_lipschitz(probs, alpha=alpha, lipschitz=constants[None])
    for row, a, radius in zip(np.asarray(probs), np.asarray(alpha), np.asarray(ours), strict=True):
        y = row.argmax()
        others = [i for i in range(5) if i != y]
        expected = min(
            max(0.0, a * (row[y] - row[i]) + a - 1) / (a * float(constants[y] + constants[i]))
            for i in others
        )
        assert radius == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("formula", ["published", "ours"])
def test_nothing_is_certified_without_a_margin(formula):
    low, high = jnp.float32([0.2, 0.5, 0.9, 0.9]), jnp.float32([0.6, 0.5, 0.05, 0.05])
    alpha = jnp.float32([1.0, 1.0, 0.5, 0.0])
    settings = {"sigma": 1.0, "formula": formula}
    radius = mixing.certified_radius_smoothing(low, high, alpha=alpha, **settings)
    np.testing.assert_array_equal(radius, np.zeros(4))
    every = mixing.certified_radius_smoothing(low[2:], high[2:], alpha=1.0, **settings)
    assert (every > 1).all()


def test_our_radius_is_the_largest_and_solves_its_equation(float64):
    low, high, alpha = jnp.meshgrid(
        jnp.linspace(0.3, 0.9999, 25),
        jnp.linspace(1e-6, 0.4, 25),
        jnp.linspace(0.5, 1.0, 11),
        indexing="ij",
    )
    settings = {"alpha": alpha, "sigma": 0.5}
    published = mixing.certified_radius_smoothing(low, high, **settings)
    ours = mixing.certified_radius_smoothing(low, high, **settings, formula="ours")
    valid = low + high <= 1
    assert (jnp.where(valid, ours - published, 0.0) > -1e-9).all()
    assert (ours > published + 0.1).mean() > 0.1

    t = ours / 0.5
    margin = cdf(jax.scipy.special.ndtri(low) - t) - cdf(jax.scipy.special.ndtri(high) + t)
    found = np.asarray(ours) > 0
    np.testing.assert_allclose(
        np.asarray(margin)[found], np.asarray((1 - alpha) / alpha)[found], atol=1e-9
    )


def attack_in(std, rob):
    """The strongest PGD in the l_2 ball, compiled once for all weights and radii; images leave
    [0, 1] in no case."""

    @jax.jit
    def attack(alpha, images, labels, radius):
        return attacks.pgd(
            mixing.mixed(std, rob, alpha=alpha),
            jax.random.key(0),
            images,
            labels,
            threat=threats.l2(radius),
            loss=losses.margin,
            steps=30,
            step_size=radius / 6,
            restarts=2,
            keep="best",
        ).success

    return attack


def setting(classes, key):
    """Images, directions of linear bases, and an accurate base that is anything but smooth."""
    keys = jax.random.split(key, 3)
    images = jax.random.uniform(keys[0], (40, *SIZE), minval=0.3, maxval=0.7)
    directions = jax.random.normal(keys[1], (9, classes))
    adversary = 300 * jax.random.normal(keys[2], (9, classes))

    def std(x):
        return (x.reshape(len(x), -1) - 0.5) @ adversary

    return images, directions, std


def test_no_attack_inside_the_radius_of_a_linear_base(key):
    """A softmax of linear logits: each probability is |w_i - w_j| / 4-Lipschitz at most."""
    images, directions, std = setting(3, key)

    def rob(x):
        return 6 * (x.reshape(len(x), -1) - 0.5) @ directions

    pairs = 6 * directions[:, :, None] - 6 * directions[:, None]
    constants = jnp.linalg.norm(pairs, axis=0).max(-1) / 4
    probs, labels, attack = jax.nn.softmax(rob(images)), rob(images).argmax(-1), attack_in(std, rob)
    for alpha in (0.6, 0.8, 0.95):
        radius = mixing.certified_radius_lipschitz(probs, alpha=alpha, lipschitz=constants[None])
        assert (radius > 0.01).sum() >= 5
        success = attack(alpha, images, labels, radius)
        assert not jnp.where(radius > 0, success, False).any()
        # The attack is one that can succeed, and the radius is not needlessly small.
        further = attack(alpha, images, labels, 8 * radius + 0.1)
        assert jnp.where(radius > 0, further, False).any()


def strips(x, directions):
    """Three classes by one linear score: a smoothed classifier in closed form."""
    direction = directions[:, 0] / jnp.linalg.norm(directions[:, 0])
    return (x.reshape(len(x), -1) - 0.5) @ direction[:, None]


EDGES = jnp.float32([[-0.15, 0.15]])


def hard(score):
    logits = jnp.concatenate([EDGES[:, :1] - score, 0.15 - jnp.abs(score), score - EDGES[:, 1:]], 1)
    return jax.nn.one_hot(logits.argmax(-1), 3)


def smoothed(score, sigma):
    below = cdf((EDGES - score) / sigma)
    return jnp.stack([below[:, 0], below[:, 1] - below[:, 0], 1 - below[:, 1]], 1)


def test_no_attack_inside_the_radius_of_a_smoothed_base(key):
    """Radii from samples of the hard classifier; the mix is with its exact smoothing."""
    sigma = 0.1
    images, directions, std = setting(3, key)

    def hard_fn(x):
        return hard(strips(x, directions))

    def rob(x):
        return jnp.log(smoothed(strips(x, directions), sigma))

    counts = jax.jit(
        lambda key, samples: mixing.smoothed_counts(
            hard_fn, key, images, sigma=sigma, samples=samples, batch_size=500
        ),
        static_argnums=1,
    )
    first, second = jax.random.split(key)
    bounds = mixing.smoothed_bounds(counts(first, 100), counts(second, 4000))
    exact = np.asarray(jnp.exp(rob(images)))
    own = np.arange(3)[None] == bounds.labels[:, None]
    assert (exact[own] >= bounds.lower).all()
    assert (np.where(own, 0, exact).max(1) <= bounds.upper).all()

    low, high = jnp.float32(bounds.lower), jnp.float32(bounds.upper)
    labels, attack = jnp.asarray(bounds.labels), attack_in(std, rob)
    for alpha, formula in itertools.product((0.7, 0.9), ("published", "ours")):
        radius = mixing.certified_radius_smoothing(
            low, high, alpha=alpha, sigma=sigma, formula=formula
        )
        assert (radius > 0.02).sum() >= 5
        success = attack(alpha, images, labels, radius)
        assert not jnp.where(radius > 0, success, False).any()
        further = attack(alpha, images, labels, 5 * radius)
        assert jnp.where(radius > 0, further, False).any()


def test_our_radius_is_reached_by_the_worst_pair():
    """One step beyond it a base of two half-spaces and a one-hot accurate base change the class."""
    sigma, alpha = 0.5, 0.76
    low, high = jnp.float32(0.97), jnp.float32(0.0033)
    radius = mixing.certified_radius_smoothing(low, high, alpha=alpha, sigma=sigma, formula="ours")

    @jax.jit
    def keeps(factor):
        t = factor * radius / sigma
        own = cdf(jax.scipy.special.ndtri(low) - t)
        other = cdf(jax.scipy.special.ndtri(high) + t)
        rob = jnp.log(jnp.stack([own, other, 1 - own - other]))
        out = mixing.mix(jnp.float32([-1e6, 0, -1e6]), rob, alpha=alpha)
        return out.argmax() == 0

    assert keeps(0.999)
    assert not keeps(1.001)


def test_inherited_radius():
    margins = jnp.float32([0.0, 0.2, 0.26, 1.0])
    radius = mixing.certified_radius_inherited(margins, jnp.ones(4), alpha=0.8)
    np.testing.assert_array_equal(radius, [0, 0, 1, 1])
    half = mixing.certified_radius_inherited(
        margins, jnp.ones(4), alpha=jnp.float32([1, 1, 0.4, 0])
    )
    np.testing.assert_array_equal(half, [0, 1, 0, 0])
    # At any margin above the threshold the worst accurate base does not change the class.
    for alpha in (0.5, 0.7, 0.99):
        margin = float(mixing.inherited_margin(alpha)) + 1e-3
        if margin < 1:
            rob = jnp.log(jnp.float32([(1 + margin) / 2, (1 - margin) / 2]))
            assert mixing.mix(jnp.float32([-1e6, 1e6]), rob, alpha=alpha).argmax() == 0


def test_clopper_pearson_by_its_definition():
    """At the lower bound so many successes or more are as likely as stated, and no more."""
    counts = np.arange(0, 21)
    lower, upper = mixing.clopper_pearson(counts, 20, failure=0.01)
    np.testing.assert_allclose(binom.sf(counts[1:] - 1, 20, lower[1:]), 0.01, rtol=1e-9)
    np.testing.assert_allclose(binom.cdf(counts[:-1], 20, upper[:-1]), 0.01, rtol=1e-9)
    assert (lower[0], upper[-1]) == (0, 1)


def test_bounds_hold_as_often_as_stated():
    rng = np.random.default_rng(0)
    probs = np.array([0.6, 0.3, 0.08, 0.02])
    counts = rng.multinomial(200, probs, size=4000)
    bounds = mixing.smoothed_bounds(np.tile([[9, 1, 0, 0]], (4000, 1)), counts, confidence=0.9)
    fails = (bounds.lower > 0.6) | (bounds.upper < 0.3)
    assert 0.005 < fails.mean() < 0.1


def test_counts_do_not_depend_on_the_batch(key):
    images = jax.random.uniform(key, (5, *SIZE))

    def logits_fn(x):
        return hard(strips(x, jnp.ones((9, 1))))

    @functools.partial(jax.jit, static_argnums=2)
    def counts(images, keys, batch_size):
        return mixing.smoothed_counts(
            logits_fn, keys, images, sigma=0.3, samples=70, batch_size=batch_size
        )

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(5))
    whole = counts(images, keys, 32)
    assert (whole.sum(1) == 70).all()
    np.testing.assert_array_equal(whole[2:3], counts(images[2:3], keys[2:3], 7))
    assert (whole != counts(images, keys[::-1], 32)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mixing.certified_radius_smoothing(0.9, 0.1, alpha=1, sigma=1, formula="x"),
            "formula",
        ),
        (lambda: mixing.certified_radius_lipschitz(jnp.ones(2), alpha=2.0, lipschitz=1.0), "alpha"),
        (lambda: mixing.clopper_pearson(np.array([3]), 2, failure=0.1), "counts"),
        (lambda: mixing.clopper_pearson(np.array([1]), 2, failure=1.0), "failure"),
        (lambda: mixing.smoothed_bounds(np.ones((1, 2)), np.ones((1, 3))), "must both be"),
        (
            lambda: mixing.smoothed_bounds(np.ones((2, 2)), np.array([[1, 2], [3, 4]])),
            "same positive sum",
        ),
        (
            lambda: mixing.smoothed_counts(
                lambda x: x, jax.random.key(0), jnp.ones((1, 2, 2, 1)), sigma=1, samples=0
            ),
            "samples",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
