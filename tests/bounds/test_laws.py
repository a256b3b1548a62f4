"""Laws of bounds: sound, tight at a radius of 0, IBP monotone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust import attacks, bounds, threats
from jaxrobust.bounds._region import ball_region
from jaxrobust.losses import margin

SHAPE, CLASSES = (2, 4, 4, 2), 3
METHODS = ("ibp", "crown-ibp", "crown")


def network(params, act, x):
    """A convolution, a pool, a residual block and a dense layer."""
    axes = ("NHWC", "HWIO", "NHWC")
    conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=axes)
    x = act(conv(x - 0.5, params["first"], (1, 1), "SAME"))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = act(x + conv(act(x), params["second"], (1, 1), "SAME"))
    return x.reshape(len(x), -1) @ params["dense"]


def drawn(seed):
    rng = np.random.default_rng(seed)
    shapes = {"first": (3, 3, 2, 3), "second": (3, 3, 3, 3), "dense": (12, CLASSES)}
    params = {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}
    images = jnp.asarray(rng.uniform(size=SHAPE) * rng.integers(0, 2, SHAPE), jnp.float32)
    return params, images, jnp.asarray(rng.integers(0, CLASSES, SHAPE[0]))


ACTS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "silu": jax.nn.silu}


@functools.cache
def program(name, norm):
    """Margins of all methods, and the smallest that PGD finds."""

    def run(params, images, labels, eps):
        fn = functools.partial(network, params, ACTS[name])
        threat = getattr(threats, norm)(eps)
        found = {m: bounds.margins(fn, images, labels, threat=threat, method=m) for m in METHODS}
        size = {"steps": 10, "step_size": threats.default_step(threat, 10), "keep": "best"}
        loss = lambda z, y: margin(z, y)  # noqa: E731
        keys = jax.random.key(0)
        fooled = attacks.pgd(fn, keys, images, labels, threat=threat, loss=loss, **size)
        logits = fn(fooled.images)
        right = jnp.take_along_axis(logits, labels[:, None].astype(jnp.int32), 1)
        return found, right - logits, fooled.success

    return jax.jit(run)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("norm", ["linf", "l2", pytest.param("l1", marks=pytest.mark.slow)])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.sampled_from([0.0, 1e-3, 0.03, 0.2, 0.9]))
def test_no_attack_falls_below_a_bound(name, norm, seed, eps):
    found, attained, success = program(name, norm)(*drawn(seed), jnp.float32(eps))
    scale = 1 + max(float(jnp.abs(attained).max()), float(jnp.abs(found["crown"]).max()))
    for method in METHODS:
        assert (found[method] <= attained + 2e-5 * scale).all(), method
        assert not (bounds.verified(found[method] - 1e-4 * scale) & success).any()
        if eps == 0:
            np.testing.assert_allclose(found[method], attained, atol=2e-5 * scale)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), small=st.floats(0, 0.5), more=st.floats(0, 0.5))
def test_ibp_falls_with_the_radius(seed, small, more):
    run, parts = program("relu", "linf"), drawn(seed)
    near = run(*parts, jnp.float32(small))[0]["ibp"]
    far = run(*parts, jnp.float32(small + more))[0]["ibp"]
    assert (far <= near + 1e-5 * (1 + jnp.abs(near))).all()


@functools.partial(jax.jit, static_argnums=0)
def least(norm, x, rows, eps):
    return ball_region(norm, x, eps, (0.0, 1.0)).least(rows)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("norm", ["l2", "l1"])
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), eps=st.floats(0, 3))
def test_minima_of_linear_functions_are_attained(norm, seed, eps):
    """The bound is a minimum: no point is below it, and the greedy or the projected one meets it."""
    rng = np.random.default_rng(seed)
    x, w = rng.uniform(size=6) * rng.integers(0, 2, 6), rng.normal(size=6) * rng.integers(0, 2, 6)
    bound = float(least(norm, jnp.asarray(x), jnp.asarray(w)[None], jnp.asarray(eps))[0])
    room = np.where(w > 0, x, 1 - x)
    if norm == "l1":
        m, left = np.zeros(6), eps
        for i in np.argsort(-np.abs(w)):
            m[i] = min(room[i], left)
            left -= m[i]
    else:
        inside, outside = 0.0, 1e9  # |min(|w| t, room)| = eps by plain bisection
        for _ in range(200):
            t = (inside + outside) / 2
            good = np.linalg.norm(np.minimum(np.abs(w) * t, room)) <= eps
            inside, outside = (t, outside) if good else (inside, t)
        m = np.minimum(np.abs(w) * inside, room)
    np.testing.assert_allclose(bound, w @ x - np.abs(w) @ m, atol=1e-9)


LAYERS = {
    **ACTS,
    "clip": lambda x: jnp.clip(x, -1, 1),
    "abs": jnp.abs,
    "square": lambda x: 0.1 * x**2,
    "pairs": lambda x: jnp.maximum(x[:, ::2], x[:, 1::2]),
    "residual": lambda x: x + jax.nn.relu(-x),
}
# A network by its layers, a number for weights, images and labels, and a ball.
drawn_networks = st.tuples(
    st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=3),
    st.integers(0, 2**31),
    st.sampled_from(["linf", "l2", "l1"]),
    st.sampled_from([1e-3, 0.05, 0.3]),
)


@settings(max_examples=4, deadline=None)
@given(drawn_networks)
def test_no_attack_falls_below_a_bound_of_a_drawn_network(parts):
    layers, seed, norm, eps = parts
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 3, len(layers) + 1) * 2  # even, for pairs
    widths = [6] + [s // 2 if n == "pairs" else s for s, n in zip(sizes, layers, strict=False)]
    weights = [
        jnp.asarray(rng.normal(size=(before, after)), jnp.float32)
        for before, after in zip(widths, [*sizes[: len(layers)], CLASSES], strict=True)
    ]

    def fn(x):
        x = x.reshape(len(x), -1)
        for name, weight in zip(layers, weights[:-1], strict=True):
            x = LAYERS[name](x @ weight)
        return x @ weights[-1]

    images = jnp.asarray(rng.uniform(size=(2, 1, 3, 2)), jnp.float32)
    labels, threat = jnp.asarray(rng.integers(0, CLASSES, 2)), getattr(threats, norm)(eps)

    @jax.jit
    def run():
        found = {
            method: bounds.margins(fn, images, labels, threat=threat, method=method, iterations=3)
            for method in ("ibp", "crown", "alpha-crown")
        }
        options = {"steps": 20, "step_size": threats.default_step(threat, 20), "keep": "best"}
        fooled = attacks.pgd(
            fn, jax.random.key(seed), images, labels, threat=threat, loss=margin, **options
        )
        logits = fn(fooled.images)
        return found, jnp.take_along_axis(logits, labels[:, None], 1) - logits

    found, attained = run()
    scale = 1 + float(jnp.abs(jnp.stack([*found.values(), attained])).max())
    for method, bound in found.items():
        assert (bound <= attained + 2e-5 * scale).all(), method
    assert (found["alpha-crown"] >= found["crown"] - 2e-5 * scale).all()
