"""Losses: hand-worked values, the authors' values, gradients at extremes, strict dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxrobust import losses

LABELLED = {
    "cross_entropy": losses.cross_entropy,
    "smoothed": lambda z, y: losses.cross_entropy(z, y, label_smoothing=0.1),
    "margin": losses.margin,
    "dlr": losses.dlr,
    "dlr_targeted": lambda z, y: losses.dlr_targeted(z, y, (y + 1) % 10),
}
DISTANCES = ["kl", "rkl", "js", "sqrt_kl", "sqrt_rkl", "sqrt_js"]
DISTANCES += ["squared_error", "l1", "l1_squared", "l2", "linf"]
PAIRED = {name: losses.distance(name) for name in DISTANCES} | {
    "kl_divergence": losses.kl_divergence,
    "squared": losses.squared_error,
    "trades": lambda p, q: losses.trades(p, q, jnp.zeros(p.shape[:-1], int), beta=6.0),
}
# Names of the golden file -> ours; there D(output, target), here distance(target, output).
AUTHORS = {
    "KL": "kl",
    "KLsqrt": "sqrt_kl",
    "RKLsqrt": "sqrt_rkl",
    "JS": "js",
    "JSsqrt": "sqrt_js",
    "LSE": "squared_error",
    "L1square": "l1_squared",
    "1": "l1",
    "2": "l2",
    "inf": "linf",
}


def extreme(dtype, k=10):
    """Ordinary, saturated, tied and hugely shifted logits."""
    rows = np.stack(
        [
            np.linspace(-1, 1, k),
            np.eye(k)[3] * 1e4,
            np.eye(k)[4] * -1e4,
            np.zeros(k),
            np.full(k, 1e4),
            np.where(np.arange(k) < 2, 1e4, -1e4),
        ]
    )
    return jnp.asarray(rows, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", LABELLED)
def test_labelled_losses_are_finite_at_extreme_logits(name, dtype):
    logits, labels = extreme(dtype), jnp.arange(6)
    loss = LABELLED[name]
    value = loss(logits, labels)
    assert value.shape == (6,)
    assert value.dtype == jnp.float32
    grad = jax.grad(lambda z: loss(z, labels).sum())(logits)
    assert grad.dtype == dtype
    # The untargeted and targeted DLR of three tied top logits divide by 1e-12.
    assert np.isfinite(np.asarray(grad, np.float32)).all()
    assert np.isfinite(np.asarray(value)).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", PAIRED)
def test_paired_losses_are_finite_at_extreme_logits(name, dtype):
    p = extreme(dtype)
    q = p[::-1]
    loss = PAIRED[name]
    assert loss(p, q).dtype == jnp.float32
    grads = jax.grad(lambda p, q: loss(p, q).sum(), argnums=(0, 1))(p, q)
    for grad in (*grads, *jax.grad(lambda p, q: loss(p, q).sum(), argnums=(0, 1))(p, p)):
        assert np.isfinite(np.asarray(grad, np.float32)).all()


@pytest.mark.parametrize("name", [*LABELLED, *PAIRED])
def test_losses_agree_under_jit_vmap_and_leading_axes(name, key):
    logits = jax.random.normal(key, (3, 4, 10))
    if name in LABELLED:
        args, loss = (logits, jnp.arange(12).reshape(3, 4) % 10), LABELLED[name]
    else:
        args, loss = (logits, logits[::-1]), PAIRED[name]
    value = loss(*args)
    assert value.shape == (3, 4)
    np.testing.assert_allclose(jax.jit(loss)(*args), value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(loss))(*args), value, rtol=1e-5, atol=1e-6)
    # Broadcasting: one row of logits against many.
    spread = loss(logits[:, :1], args[1])
    np.testing.assert_allclose(spread[:, 0], value[:, 0], rtol=1e-5, atol=1e-6)
    assert spread.shape == (3, 4)


def test_hand_worked_values():
    logits = jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125]))
    assert float(losses.cross_entropy(logits, 1)) == pytest.approx(np.log(4), rel=1e-6)
    soft = jnp.array([0.5, 0.5, 0.0, 0.0])
    assert float(losses.cross_entropy(logits, soft)) == pytest.approx(1.5 * np.log(2), rel=1e-6)
    uniform = jnp.zeros(4)
    assert float(losses.kl_divergence(uniform, logits)) == pytest.approx(
        0.25 * (np.log(0.5) + 0 + 2 * np.log(2)), rel=1e-5
    )
    assert float(losses.squared_error(uniform, logits)) == pytest.approx(3 / 32, rel=1e-5)
    z = jnp.array([5.0, 3.0, 1.0, -1.0])
    assert float(losses.margin(z, 0)) == -2.0
    assert float(losses.margin(z, 2)) == 4.0
    assert float(losses.dlr(z, 0)) == -0.5
    assert float(losses.dlr(z, 3)) == 1.5
    assert float(losses.dlr_targeted(z, 0, 3)) == pytest.approx(-6 / 5)
    assert losses.cross_entropy(z, -1) == 0


def test_trades_is_cross_entropy_where_beta_is_zero_or_images_agree(key):
    z, w = jax.random.normal(key, (2, 5, 10))
    labels = jnp.arange(5)
    natural = losses.cross_entropy(z, labels)
    np.testing.assert_array_equal(losses.trades(z, w, labels, beta=0.0), natural)
    np.testing.assert_allclose(losses.trades(z, z, labels, beta=6.0), natural, rtol=1e-6)
    assert (losses.trades(z, w, labels, beta=6.0) > natural).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", AUTHORS)
def test_distances_are_the_authors(golden, name):
    data = golden("at_public_divs")
    target, output = (jnp.log(data[f"dist.{side}"]) for side in ("target", "output"))
    measure = losses.distance(AUTHORS[name])
    finite = np.isfinite(data[f"dist.{name}.value"])
    assert finite.sum() >= 6
    np.testing.assert_allclose(
        measure(target, output)[finite], data[f"dist.{name}.value"][finite], atol=1e-8
    )

    def of_probabilities(t, o):
        return measure(jnp.log(t), jnp.log(o))[finite].sum()

    # The library's argument are logits: its gradient is the authors', projected on the simplex.
    interior = finite & (data["dist.target"] > 0).all(1) & (data["dist.output"] > 0).all(1)
    grads = jax.grad(of_probabilities, (0, 1))(data["dist.target"], data["dist.output"])
    for grad, side in zip(grads, ("target", "output"), strict=True):
        stored, p = data[f"dist.{name}.grad_{side}"], data[f"dist.{side}"]
        tangent = stored - (stored * p).sum(1, keepdims=True)
        regular = interior & np.isfinite(stored).all(1)
        assert regular.sum() >= 4
        np.testing.assert_allclose(grad[regular], tangent[regular], rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_smoothed_cross_entropy_is_the_authors(golden):
    data = golden("at_public_core")
    value = losses.cross_entropy(
        data["smooth_ce.logits"], data["y"], label_smoothing=float(data["smooth_ce.smoothing"])
    )
    np.testing.assert_allclose(value.mean(), data["smooth_ce.loss"], rtol=1e-8)


LOGITS = hnp.arrays(np.float32, (4, 6), elements=st.floats(-50, 50, width=32))


@settings(deadline=None, max_examples=30)
@given(p=LOGITS, q=LOGITS, r=LOGITS)
def test_metrics_are_metrics_and_bounds_hold(p, q, r):
    for name in ("sqrt_js", "l1", "l2", "linf"):
        d = losses.distance(name)
        assert (d(p, q) >= 0).all()
        np.testing.assert_allclose(d(p, q), d(q, p), atol=1e-5)
        assert (np.asarray(d(p, q)) <= np.asarray(d(p, r) + d(r, q)) + 2e-3).all(), name
    assert (losses.kl_divergence(p, q) >= -1e-5).all()
    pinsker = losses.distance("l1")(p, q) ** 2 / 2
    assert (pinsker <= losses.kl_divergence(p, q) + 1e-4).all()


def test_errors_name_the_argument():
    with pytest.raises(ValueError, match="distance name 'cosine' is unknown; choose from"):
        losses.distance("cosine")
    with pytest.raises(ValueError, match="labels must be integer"):
        losses.margin(jnp.zeros((2, 3)), jnp.zeros(2))
    with pytest.raises(ValueError, match="logits must be floating-point"):
        losses.cross_entropy(jnp.zeros((2, 3), int), jnp.zeros(2, int))
    with pytest.raises(ValueError, match="k >= 4"):
        losses.dlr_targeted(jnp.zeros((2, 3)), jnp.zeros(2, int), jnp.ones(2, int))
    with pytest.raises(AssertionError, match="same number of classes"):
        losses.kl_divergence(jnp.zeros((2, 3)), jnp.zeros((2, 4)))
