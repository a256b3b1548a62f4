"""Twins: the values of the function, gradients where it has none, and honest functions untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import mixing, twins

X = jax.random.uniform(jax.random.key(0), (3, 5), minval=-1, maxval=1)
TABLE = jnp.linspace(0, 1, 11) ** 2
MEAN, SIGMA = jnp.linspace(-0.2, 0.2, 5), jnp.full(5, 0.5)


def thermometer(x):
    return (x[..., None] > jnp.linspace(-1, 1, 7)[None, None]).astype(x.dtype).sum(-1)


def one_hot_of_levels(x):
    level = jnp.floor(5 * (x + 1)).astype(jnp.int32)
    return jax.nn.one_hot(level, 10) @ jnp.arange(10.0)


def mean_sparse(x):
    return jnp.where(jnp.abs(x - MEAN[None]) < 0.4 * SIGMA[None], MEAN[None], x)


def winners(x):
    threshold = jax.lax.top_k(x, 2)[0][..., -1:]
    return jnp.where(x >= threshold, x, 0)


@jax.custom_vjp
def hidden(x):
    return 2 * x


hidden.defvjp(lambda x: (hidden(x), None), lambda _, cotangent: (0 * cotangent,))


def in_scan(x):
    return jax.lax.scan(lambda c, _: (jnp.round(8 * c) / 8, None), x, None, length=3)[0]


def in_cond(x):
    return jax.lax.cond(x.sum() > 0, lambda v: jnp.round(v), lambda v: jnp.floor(v), x)


STOPPED = {
    "round": (lambda x: jnp.round(8 * x) / 8, "round", 1.0),
    "floor": (lambda x: jnp.floor(8 * x) / 8, "floor", 1.0),
    "ceil": (lambda x: jnp.ceil(8 * x) / 8, "ceil", 1.0),
    "stop_gradient": (lambda x: jax.lax.stop_gradient(x) * 3, "stop_gradient", 3.0),
    "cast": (lambda x: (8 * x).astype(jnp.int8).astype(x.dtype) / 8, "convert_element_type", 1.0),
    "bits": (lambda x: ((16 * x + 64).astype(jnp.int32) >> 2).astype(x.dtype), "convert_element_type", 4.0),
    "integer sums": (lambda x: (2 * (8 * x).astype(jnp.int32) - 3).astype(x.dtype), "convert_element_type", 16.0),
    "table": (lambda x: TABLE[jnp.floor(4.9 * (x + 1)).astype(jnp.int32)], "floor", None),
    "sign": (lambda x: jnp.sign(x), "sign", None),
    "thermometer": (thermometer, "convert_element_type", None),
    "constants": (lambda x: jnp.where(x > 0.1, 1.0, -1.0), "select_n", None),
    "levels": (one_hot_of_levels, "floor", None),
    "mean sparse": (mean_sparse, "select_n", 1.0),
    "winners": (winners, "select_n", 1.0),
    "author's rule": (hidden, "custom_vjp_call", 2.0),
    "scan": (in_scan, "round", 1.0),
    "cond": (in_cond, "round", 1.0),
    "jit of remat": (jax.jit(jax.checkpoint(lambda x: jnp.round(x))), "round", 1.0),
}  # fmt: skip


def slopes(fn, x=X):
    return np.asarray(jax.grad(lambda v: fn(v).sum())(x))


@pytest.mark.parametrize("name", STOPPED)
def test_the_twin_has_the_values_and_a_gradient(name):
    fn, primitive, slope = STOPPED[name]
    twin = twins.straight_through(fn)
    for call in (twin, jax.jit(twin)):
        np.testing.assert_array_equal(call(X), fn(X))
    assert not slopes(fn).all(), "the case would prove nothing"
    found = slopes(twin)
    if slope is not None:
        np.testing.assert_allclose(found, slope, rtol=1e-6)
    elif name == "levels":  # at the middle of a level neither neighbour is nearer
        assert (found >= 0).all()
        assert found.sum() > 0
    else:
        assert (found[np.abs(X) < 0.95] > 0).all()
    stops = twins.gradient_stops(fn, X)
    assert primitive in [stop.primitive for stop in stops], stops
    assert all("test_twins.py:" in stop.source for stop in stops), stops
    np.testing.assert_allclose(slopes(jax.vmap(twin), X[None])[0], found, rtol=1e-6)


def test_an_argmax_code_has_the_gradient_of_softmax():
    weights = jnp.array([1.0, -2.0, 0.5, 3.0, 0.0])

    def code(x):
        return jax.nn.one_hot(x.argmax(-1), 5) @ weights

    twin = twins.straight_through(code)
    np.testing.assert_array_equal(twin(X), code(X))
    expected = slopes(lambda x: jax.nn.softmax(x) @ weights)
    np.testing.assert_allclose(slopes(twin), expected, rtol=1e-5, atol=1e-7)
    assert next(stop.primitive for stop in twins.gradient_stops(code, X)) == "argmax"


def test_mixed_nuts_has_the_gradient_of_its_accurate_base_too():
    weights = jax.random.normal(jax.random.key(1), (5, 4))
    robust = jnp.tile(jnp.arange(4.0), (3, 1))

    def nuts(x):
        return mixing.mixednuts_mix(x @ weights, robust, s=1.0, p=1.0, c=0.0, alpha=0.6)

    twin = twins.straight_through(nuts)
    np.testing.assert_array_equal(twin(X), nuts(X))
    chosen = np.asarray(nuts(X)).argmax(-1)

    def lead(fn):
        return lambda x: fn(x)[np.arange(3), chosen]

    expected = slopes(lead(lambda x: jax.nn.log_softmax(x @ weights)))
    found = slopes(lead(twin))
    assert not slopes(lead(nuts)).any()
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    np.testing.assert_allclose(cosine, np.linalg.norm(expected, axis=1), rtol=1e-4)


@jax.jit
def pooled(x):
    maps = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2), (1, 1), "VALID")
    return jax.nn.gelu(maps) + jnp.maximum(maps, 0)


HONEST = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "hard tanh": jax.nn.hard_tanh,
    "where relu": lambda x: jnp.where(x > 0, x, 0.0),
    "leaky": lambda x: jax.nn.leaky_relu(x) + jax.nn.elu(x) + jax.nn.selu(x),
    "pooled": pooled,
    "softmax": lambda x: jax.nn.softmax(x) + jax.nn.log_softmax(x) + jax.nn.softplus(x),
    "logsumexp": lambda x: jax.scipy.special.logsumexp(x, -1),
    "safe": lambda x: jnp.where(x == 0, 1.0, x),
    "padding": lambda x: jnp.where(jnp.arange(5)[None] < 3, x, 0.0),
    "constants are rounded": lambda x: x * jnp.round(MEAN * 9)[None],
    "dropout mask": lambda x: (
        x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape).astype(x.dtype)
    ),
    "half": lambda x: x.astype(jnp.float16).astype(jnp.float32),
    "attention": lambda x: jax.nn.dot_product_attention(*[x[None, :, None]] * 3)[0, :, 0],
    "scan": lambda x: jax.lax.scan(lambda c, v: (jax.nn.relu(c + v), c), x[0], x)[1],
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_functions_are_not_accused_and_stay_what_they_are(name):
    fn = HONEST[name]
    assert twins.gradient_stops(fn, X) == ()
    twin = twins.straight_through(fn)
    np.testing.assert_allclose(twin(X), fn(X), rtol=1e-6)
    np.testing.assert_allclose(slopes(twin), slopes(fn), rtol=1e-6, atol=1e-7)


def test_a_clip_leaks_a_tenth_and_is_a_finding():
    def clipped(x):
        return jnp.clip(5 * x, -1, 1)

    found = slopes(twins.straight_through(clipped))
    inside = np.abs(5 * X) < 1
    np.testing.assert_allclose(found, np.where(inside, 5.5, 0.5), rtol=1e-6)
    (stop,) = twins.gradient_stops(clipped, X)
    assert stop.what == "cuts its input off"
    (stop,) = twins.gradient_stops(lambda x: jax.lax.clamp(0.0, x, 0.5), X)
    assert str(stop).startswith("clamp cuts its input off, [] [3, 5] [], test_twins.py:")


def test_several_arguments_and_results_and_any_tree():
    def fn(pair, count):
        return {"a": jnp.round(pair[0]) * count.astype(X.dtype), "b": pair[1].sum()}

    args = ((X, X), jnp.int32(2))
    found, there = twins.straight_through(fn)(*args), fn(*args)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), found, there))
