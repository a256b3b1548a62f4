"""What bounds accept and refuse, and what they promise besides numbers."""

import re
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import bounds, threats
from jaxrobust.inputs import InputError
from tests.bounds.nets import channels

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.uniform(0.2, 0.8, (3, 4, 4, 2)), jnp.float32)
Y = jnp.array([0, 2, 1])
W = jnp.asarray(RNG.normal(size=(32, 6)), jnp.float32)
V = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
BALL = {"threat": threats.linf(0.02)}


def mlp(x, act=jax.nn.relu, weights=W):
    return act(x.reshape(len(x), -1) @ weights) @ V


def sampled(fn, eps=0.02, draws=200):
    """The smallest margins over random corners of the ball."""
    signs = jnp.asarray(np.random.default_rng(1).choice([-1.0, 1.0], (draws, *X.shape)), X.dtype)

    @jax.jit
    def smallest(signs):
        z = jax.vmap(lambda s: fn(jnp.clip(X + eps * s, 0, 1)))(signs)
        label = jnp.take_along_axis(z, jnp.broadcast_to(Y[None, :, None], (draws, len(Y), 1)), -1)
        return (label - z).min(0)

    return smallest(signs)


FUNCTIONS = {
    "relu6": lambda x: jnp.minimum(jax.nn.relu(x), 2.0),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.5),
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.1),
    "max_leaky": lambda x: jnp.maximum(0.2 * x, x),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "where_flipped": lambda x: jnp.where(jnp.less_equal(x, 0), 0.3 * x, x),
    "abs": jnp.abs,
    "tanh": jnp.tanh,
    "erf": jax.lax.erf,
    "square": lambda x: x**2,
    "product_with_itself": lambda x: x * x,
    "log": lambda x: jnp.log(jnp.exp(x) + 1.0),
    "sqrt": lambda x: jnp.sqrt(x**2 + 1.0),
    "gate": lambda x: x * jax.nn.sigmoid(2 * x),
    "silu": jax.nn.silu,
    "checkpoint": jax.checkpoint(lambda x: jnp.tanh(x) * 2),
    "scan": lambda x: jax.lax.scan(lambda c, w: (jnp.tanh(c * w), c), x, jnp.array([1.0, -0.5]))[0],
    "scan_outputs": lambda x: jax.lax.scan(lambda c, w: (c * w, c), x, jnp.ones(2), reverse=True)[1].sum(0),
    "split": lambda x: jnp.concatenate(jnp.split(x, 2, axis=-1)[::-1], -1),
    "largest_of_two": lambda x: jnp.maximum(x, x[:, ::-1]),
    "smallest": lambda x: jnp.minimum(x, x[:, ::-1]) + x.min(-1, keepdims=True),
    "largest": lambda x: x.max(-1, keepdims=True) - x,
    "tile": lambda x: jnp.tile(jnp.stack([x, x])[1, :, :2], (1, 3)),
    "log_softmax": jax.nn.log_softmax,
}  # fmt: skip


def within(fn, method, x, eps):
    return bounds.margins(fn, x, Y, threat=threats.linf(eps), method=method)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_bounded(name):
    fn = lambda x: mlp(x, FUNCTIONS[name])  # noqa: E731
    limit = np.asarray(sampled(fn))
    for method in ("ibp", "crown-ibp", "crown"):
        bound = jax.jit(partial(within, fn, method))
        found = np.asarray(bound(X, 0.02))
        assert np.isfinite(found).all()
        assert (found <= limit + 1e-5 * (1 + np.abs(limit))).all()
    clean, z = bound(X, 0.0), np.asarray(fn(X))
    wanted = np.take_along_axis(z, np.asarray(Y)[:, None], 1) - z
    np.testing.assert_allclose(clean, wanted, rtol=1e-5, atol=5e-5)


@jax.custom_vjp
def straight_through(x):
    return jnp.tanh(x)


straight_through.defvjp(lambda x: (x, None), lambda _, g: (g,))


def test_a_custom_derivative_says_nothing_of_the_values():
    own, plain = (
        bounds.margins(lambda x, f=f: mlp(x, f), X, Y, **BALL) for f in (straight_through, jnp.tanh)
    )
    np.testing.assert_array_equal(own, plain)
    stopped = bounds.margins(lambda x: mlp(jax.lax.stop_gradient(x)), X, Y, **BALL)
    np.testing.assert_array_equal(stopped, bounds.margins(mlp, X, Y, **BALL))


REFUSED = {
    "sort": lambda x: jnp.sort(x),
    "sign": jnp.sign,
    "round": jnp.round,
    "floor": jnp.floor,
    "cos": jnp.cos,
    "select_n": lambda x: jnp.where(x > 0, x, jnp.exp(x)),
    "div": lambda x: 1 / (1 + x**2),
    "convert_element_type": lambda x: x.astype(jnp.bfloat16).astype(jnp.float32),
    "dot_general": lambda x: (x[:, :, None] @ x[:, None])[:, 0],
    "while": lambda x: jax.lax.while_loop(lambda c: c[0, 0] < 0, lambda c: c + 1, x),
    "cond": lambda x: jax.lax.cond(x[0, 0] > 0, jnp.tanh, jnp.exp, x),
    "argmax": lambda x: jax.nn.one_hot(jnp.argmax(x, -1), 6),
    "integer_pow": lambda x: x**3,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_a_rule_is_refused_with_its_line(name):
    fn = lambda x: mlp(x, REFUSED[name])  # noqa: E731
    with pytest.raises(bounds.UnsupportedPrimitive, match=f"'{name}'") as caught:
        bounds.margins(fn, X, Y, **BALL)
    assert re.search(r"test_contract\.py:\d+", str(caught.value))
    with pytest.raises(bounds.UnsupportedPrimitive):
        jax.jit(lambda x: bounds.ibp(fn, x, x))(X)


def test_what_the_output_does_not_need_is_not_refused():
    assert np.isfinite(bounds.margins(lambda x: (jnp.sort(x), mlp(x))[1], X, Y, **BALL)).all()


def test_training_mode_is_refused_or_seen_one_image_at_a_time():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.BatchNorm(use_running_average=not train)(nn.Conv(2, (3, 3))(x))
            return nn.Dense(3)(nn.relu(x).mean((1, 2)))

    net = Net()
    variables = net.init(jax.random.key(0), X, train=False)
    assert np.isfinite(bounds.margins(lambda x: net.apply(variables, x, False), X, Y, **BALL)).all()
    with pytest.raises(bounds.UnsupportedPrimitive):
        bounds.margins(
            lambda x: net.apply(variables, x, True, mutable=["batch_stats"])[0], X, Y, **BALL
        )


def test_a_registered_rule_is_used():
    fn = lambda x: mlp(x, jnp.exp2)  # noqa: E731
    with pytest.raises(bounds.UnsupportedPrimitive, match="exp2"):
        bounds.margins(fn, X, Y, **BALL)

    def lines(interval):
        low, high = interval
        chord = (jnp.exp2(high) - jnp.exp2(low)) / jnp.maximum(high - low, 1e-6)
        tangent = jnp.log(2.0) * jnp.exp2(low)
        return bounds.Lines(
            tangent, jnp.exp2(low) - tangent * low, chord, jnp.exp2(high) - chord * high
        )

    from jaxrobust.bounds._rule import RULES

    bounds.register("exp2", bounds.elementwise(jnp.exp2, lines))
    try:
        found = bounds.margins(fn, X, Y, **BALL)
    finally:
        del RULES["exp2"]
    assert (found <= sampled(fn) + 1e-5).all()
    with pytest.raises(InputError, match="rule must be"):
        bounds.register("exp2", 3)


def test_a_new_radius_and_new_parameters_never_trace_again():
    traces = []

    @jax.jit
    def bound(weights, x, threat):
        traces.append(0)
        return bounds.margins(lambda x: mlp(x, weights=weights), x, Y, threat=threat)

    for scale, eps in ((1.0, 0.0), (0.5, 0.1), (2.0, 0.3)):
        assert np.isfinite(bound(scale * W, X, threats.linf(jnp.float32(eps)))).all()
    assert len(traces) == 1


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown"])
@pytest.mark.parametrize("act", [jax.nn.relu, jnp.tanh, jax.nn.silu])
def test_gradients_with_respect_to_parameters(method, act):
    x, weights, v = (jnp.asarray(t, jnp.float64) for t in (X, W, V))

    @jax.jit
    def loss(weights):
        fn = lambda x: act(x.reshape(len(x), -1) @ weights) @ v  # noqa: E731
        found = bounds.margins(fn, x, Y, threat=threats.linf(0.1), method=method, iterations=3)
        return jnp.sum(jnp.tanh(found))

    direction = jnp.asarray(np.random.default_rng(2).normal(size=W.shape))
    exact = jnp.sum(jax.grad(loss)(weights) * direction)
    if method == "alpha-crown":  # its parameters are constants, the ascent has no derivative
        assert np.isfinite(exact)
        return
    step = 1e-6
    numeric = (loss(weights + step * direction) - loss(weights - step * direction)) / (2 * step)
    # At the suite's optimisation level 0 XLA's logistic is right to four digits only.
    np.testing.assert_allclose(exact, numeric, rtol=1e-3 if act is jax.nn.silu else 1e-5)


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_images_are_bounded_one_by_one(method):
    @jax.jit
    def run(x, y, eps):
        return bounds.margins(mlp, x, y, threat=threats.l2(eps), method=method, iterations=3)

    radii = np.array([0.1, 0.2, 0.3], np.float32)
    together = run(X, Y, radii)
    for i, eps in enumerate(radii):
        alone = run(X[i : i + 1], Y[i : i + 1], eps)
        np.testing.assert_allclose(alone[0], together[i], rtol=2e-6, atol=2e-6)
    swapped = run(X[::-1], Y[::-1], radii[::-1])
    np.testing.assert_allclose(swapped[::-1], together, rtol=2e-6, atol=2e-6)


def test_it_can_be_mapped():
    both = jax.vmap(lambda x: bounds.margins(mlp, x, Y, **BALL))(jnp.stack([X, X[::-1]]))
    np.testing.assert_allclose(both[0], bounds.margins(mlp, X, Y, **BALL), rtol=1e-5, atol=1e-5)


def test_elementwise_bounds_are_those_of_the_ball():
    low, high = jnp.clip(X - 0.02, 0), jnp.clip(X + 0.02, None, 1)
    for method in ("ibp", "crown"):
        np.testing.assert_array_equal(
            bounds.margins(mlp, X, Y, lower=low, upper=high, method=method),
            bounds.margins(mlp, X, Y, **BALL, method=method),
        )


def test_specifications():
    rows = jnp.asarray(RNG.normal(size=(3, 5, 3)), jnp.float32)
    shared = bounds.crown(mlp, X, **BALL, spec=rows[0])
    assert shared.shape == (3, 5)
    own = bounds.crown(mlp, X, **BALL, spec=rows)
    np.testing.assert_allclose(own[0], shared[0], rtol=1e-5, atol=1e-5)
    low, high = bounds.crown(mlp, X, **BALL), -bounds.crown(mlp, X, **BALL, spec=-jnp.eye(3))
    assert (low <= mlp(X)).all()
    assert (mlp(X) <= high).all()
    loose = bounds.ibp(mlp, X - 0.02, X + 0.02)
    assert (loose[0] <= low + 1e-5).all()
    many = bounds.crown(mlp, X, **BALL, spec=jnp.tile(rows[0], (200, 1)))
    np.testing.assert_allclose(many[:, :5], shared, rtol=1e-5, atol=1e-5)


def test_half_precision_images_are_bounded_in_float32():
    half = X.astype(jnp.bfloat16)
    found = bounds.margins(mlp, half, Y, **BALL)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, bounds.margins(mlp, half.astype(jnp.float32), Y, **BALL))


def test_overflow_is_no_proof():
    def huge(x):
        for _ in range(12):
            x = jnp.exp(x) * 1e6
        return x.reshape(len(x), -1)[:, :3]

    for method in ("ibp", "crown-ibp", "crown"):
        found = bounds.margins(huge, X, Y, **BALL, method=method)
        assert not np.isnan(found).any()
        assert not bounds.verified(found).any()
    assert not bounds.verified(jnp.array([[0.0, jnp.nan, 1.0]]))[0]


def test_a_constant_network():
    found = bounds.margins(
        lambda x: jnp.ones((len(x), 1)) * jnp.array([[1.0, 2.0, 4.0]]), X, Y, **BALL
    )
    np.testing.assert_allclose(found, [[0, -1, -3], [3, 2, 0], [1, 0, -2]])


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "none of them"),
        ({"threat": threats.spatial(30, 3)}, "threat must be the ball of a norm"),
        ({**BALL, "lower": X, "upper": X}, "threat and lower and upper"),
        ({"lower": X}, "got lower"),
        ({"lower": X, "upper": X[:2]}, "upper must have the shape of lower"),
        ({"lower": X[:2], "upper": X[:2]}, "lower must have the shape of images"),
        ({"lower": X, "upper": X - 0.1}, "lower must be at most upper"),
        ({**BALL, "method": "deeppoly"}, "method must be 'ibp'"),
        ({**BALL, "iterations": 0}, "iterations"),
        ({**BALL, "box": (1.0, 0.0)}, "box must be None or"),
        ({**BALL, "box": (0.4, 0.6)}, "box must contain the images"),
        ({"threat": threats.linf(jnp.ones(2) * 0.1)}, "eps must be one number or one per example"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, shown):
    with pytest.raises(InputError, match=re.escape(shown)):
        bounds.margins(mlp, X, Y, **options)


def test_other_bad_arguments():
    with pytest.raises(InputError, match="intermediate must be"):
        bounds.crown(mlp, X, **BALL, intermediate="forward")
    with pytest.raises(InputError, match=r"spec must be rows of 3 numbers"):
        bounds.crown(mlp, X, **BALL, spec=jnp.eye(4))
    with pytest.raises(InputError, match="margins must be floating point"):
        bounds.verified(jnp.array([1, 2]))
    with pytest.raises(InputError, match="labels"):
        bounds.margins(mlp, X, Y + 1, **BALL)
    with pytest.raises(InputError, match="fn must return"):
        bounds.ibp(lambda x: (mlp(x), 0), X, X)


CONV = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def strided(x, kernels):
    """Strides, dilation, uneven padding, pools with overlap, and a residual block."""
    conv = lambda x, k, s, p, **kw: jax.lax.conv_general_dilated(x, k, s, p, **CONV, **kw)  # noqa: E731
    x = jax.nn.relu(conv(x - 0.5, kernels[0], (2, 1), ((1, 0), (1, 2))))
    pool = (1, 3, 2, 1), (1, 1, 2, 1), "SAME"
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *pool)
    y = jnp.tanh(conv(x, kernels[1], (1, 1), "SAME", rhs_dilation=(1, 2)))
    x = jax.nn.relu(x + conv(y, kernels[2], (1, 1), "SAME"))
    x = jax.nn.relu(jax.lax.reduce_window(x, 0.0, jax.lax.add, *pool))
    return x.reshape(len(x), -1)[:, :5]


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_neurons_that_share_a_row_get_the_bounds_of_their_own(monkeypatch):
    from jaxrobust.bounds import _colours, _intermediate

    rng = np.random.default_rng(0)
    kernels = [jnp.asarray(rng.normal(size=s)) for s in ((3, 3, 1, 3), (3, 3, 3, 3), (3, 1, 3, 3))]
    x = jnp.asarray(rng.uniform(size=(2, 16, 20, 1)))
    fn, shared = (lambda x: strided(x, kernels)), []

    def seen(graph, at):
        found = _colours.colours_of(graph, at)
        shared.append(found is not None)
        return found

    monkeypatch.setattr(_intermediate, "colours_of", seen)
    together = bounds.crown(fn, x, threat=threats.linf(0.02))
    assert sum(shared) >= 3
    monkeypatch.setattr(_intermediate, "colours_of", lambda graph, at: None)
    alone = bounds.crown(fn, x, threat=threats.linf(0.02))
    np.testing.assert_allclose(together, alone, rtol=1e-10, atol=1e-10)


def test_normalisation_first_under_l2_is_sound():
    """Intervals that forget the ball at the first subtraction are not."""
    scale = channels(jnp.array([0.1, 0.2]))
    fn = lambda x: mlp((x - 0.5) / scale)  # noqa: E731
    worst = jnp.stack([X + 0.2 * d / jnp.sqrt(jnp.sum(d**2)) for d in
                       jnp.asarray(RNG.normal(size=(50, 1, *X.shape[1:])), X.dtype)])  # fmt: skip
    z = jax.vmap(fn)(jnp.clip(worst, 0, 1))
    limit = (jnp.take_along_axis(z, jnp.broadcast_to(Y[None, :, None], (50, 3, 1)), -1) - z).min(0)
    for method in ("ibp", "crown-ibp", "crown"):
        found = bounds.margins(fn, X, Y, threat=threats.l2(0.2), method=method)
        assert (found <= limit + 1e-4).all()


def test_rows_that_all_images_share_are_the_rows_of_each(float64):
    """With fewer images than classes each has its own rows; the others share those of all labels."""
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(size=shape)) for shape in ((9, 12), (12, 4))]
    images, labels = jnp.asarray(rng.uniform(size=(6, 3, 3, 1))), jnp.array([0, 1, 2, 3, 1, 3])

    def total(weights, images, labels):
        def logits_fn(x):
            return jax.nn.relu(x.reshape(len(x), -1) @ weights[0]) @ weights[1]

        found = bounds.margins(logits_fn, images, labels, threat=threats.linf(0.1), method="ibp")
        return jnp.sum(jnp.sin(found)), found

    shared = jax.value_and_grad(total, has_aux=True)(weights, images, labels)
    parts = [
        jax.value_and_grad(total, has_aux=True)(weights, images[i : i + 2], labels[i : i + 2])
        for i in (0, 2, 4)
    ]
    margins = jnp.concatenate([found for (_, found), _ in parts])
    np.testing.assert_allclose(shared[0][1], margins, rtol=1e-12, atol=1e-12)
    summed = jax.tree.map(lambda *x: sum(x), *(gradient for _, gradient in parts))
    chex.assert_trees_all_close(shared[1], summed, rtol=1e-11, atol=1e-12)
