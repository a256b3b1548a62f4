"""Mixing on logits: the authors' values and gradients, and where floating point is hard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust import losses, mixing


def both(data, tag):
    return (jnp.asarray(data[f"{tag}/logits_{base}"]) for base in ("std", "rob"))


@pytest.mark.parametrize("tag", ["c10", "c100"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_log_probabilities_and_gradients_of_the_authors_code(golden, tag, dtype):
    data = golden("mix_public")
    with jax.enable_x64(dtype == jnp.float64):
        std, rob = (z.astype(dtype) for z in both(data, tag))
        cotangent = jnp.asarray(data[f"{tag}/cotangent"], dtype)

        def value(std, rob, gamma, scales):
            out = mixing.mix(
                std, rob, alpha=jax.nn.sigmoid(gamma), std_scale=scales[0], rob_scale=scales[1]
            )
            return jnp.sum(out * cotangent), out

        run = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
        run = jax.vmap(jax.vmap(run, (None, None, 0, None)), (None, None, None, 0))
        gammas = jnp.asarray(data[f"{tag}/gamma"], dtype)
        scales = jnp.asarray(data[f"{tag}/scales"], dtype)
        (_, out), (grad_std, grad_rob) = run(std, rob, gammas, scales)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, data[f"{tag}/mixed_logprob"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(grad_std, data[f"{tag}/grad_std"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(grad_rob, data[f"{tag}/grad_rob"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tag", ["c10", "c100"])
def test_the_ends_are_the_bases(golden, tag):
    """The authors return scaled logits there; ours are the same up to a constant per example."""
    data = golden("mix_public")
    std, rob = both(data, tag)
    for alpha, base in ((0.0, "std"), (1.0, "rob")):
        ours = mixing.mix(std, rob, alpha=alpha, std_scale=1.2, rob_scale=0.3)
        theirs = jax.nn.log_softmax(jnp.asarray(data[f"{tag}/only_{base}_scale1.2_0.3"]))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_the_earlier_form(golden):
    data = golden("mix_public")
    std, rob = both(data, "c10")
    ratios = jnp.asarray(data["c10/ratio"], jnp.float32)
    assert jnp.isinf(ratios[-1])
    ours = mixing.mix_ratio(std, rob, ratio=ratios[:, None])
    np.testing.assert_allclose(ours, data["c10/ratio_logprob"], rtol=0, atol=2e-5)
    same = mixing.mix(std, rob, alpha=0.8)
    np.testing.assert_allclose(ours[list(data["c10/ratio"]).index(4.0)], same, rtol=0, atol=1e-5)


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(finite, min_size=3, max_size=3),
    st.lists(finite, min_size=3, max_size=3),
    st.sampled_from([0.0, 1e-45, 1e-38, 1e-20, 0.3, 0.5, 1 - 2**-24, 1.0]),
)
def test_value_and_gradients_are_finite(std, rob, alpha):
    def value(std, rob, alpha):
        out = mixing.mix(std, rob, alpha=alpha)
        return out.sum(), out

    arguments = (jnp.float32(std), jnp.float32(rob), jnp.float32(alpha))
    grads, out = jax.grad(value, argnums=(0, 1, 2), has_aux=True)(*arguments)
    assert not jnp.isnan(out).any()
    assert (out <= 1e-5).all()
    assert all(jnp.isfinite(g).all() for g in grads)


def test_gradient_by_alpha_at_the_ends():
    std, rob = jnp.log(jnp.float32([0.9, 0.1])), jnp.log(jnp.float32([0.4, 0.6]))
    for alpha, base in ((0.0, std), (1.0, rob)):
        grad = jax.jacobian(lambda a: mixing.mix(std, rob, alpha=a))(jnp.float32(alpha))
        expected = (jnp.exp(rob) - jnp.exp(std)) / jnp.exp(base)
        np.testing.assert_allclose(grad, expected, rtol=1e-5)


def test_alpha_per_example_sweeps_and_half_precision():
    key = jax.random.key(0)
    std, rob = jax.random.normal(key, (2, 5, 10), jnp.float32)
    alpha = jnp.linspace(0.0, 1.0, 5)
    each = mixing.mix(std, rob, alpha=alpha)
    for i in range(5):
        np.testing.assert_allclose(each[i], mixing.mix(std[i], rob[i], alpha=alpha[i]), rtol=1e-6)
    assert mixing.mix(std, rob, alpha=alpha[:, None]).shape == (5, 5, 10)
    half = mixing.mix(std.astype(jnp.bfloat16), rob.astype(jnp.bfloat16), alpha=alpha)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, each, atol=0.1)
    np.testing.assert_allclose(jnp.exp(each).sum(-1), np.ones(5), rtol=1e-6)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, np.nan, np.array([0.5, 2.0])])
def test_alpha_must_be_a_share(alpha):
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
        mixing.mix(jnp.zeros((2, 3)), jnp.zeros((2, 3)), alpha=alpha)
    with pytest.raises(ValueError, match="ratio"):
        mixing.mix_ratio(jnp.zeros(3), jnp.zeros(3), ratio=-1.0)


def test_losses_of_the_authors_code(golden):
    data = golden("mix_public")
    part = {k.removeprefix("loss/"): jnp.asarray(v) for k, v in data.items() if "loss/" in k}
    labels = part["labels"].astype(jnp.int32)
    for weights, each, mean in zip(
        data["loss/consts_bce_ce_prod"], part["comp_none"], part["comp"], strict=True
    ):
        bce, ce, product = map(float, weights)
        ours = mixing.mixing_loss(
            part["preds"],
            part["gammas"],
            labels,
            part["sup_labels"],
            bce=bce,
            ce=ce,
            product=product,
            scale=part["scale"],
        )
        np.testing.assert_allclose(ours, each, rtol=2e-5)
        np.testing.assert_allclose(ours.mean(), mean, rtol=2e-5)
    targets = part["y_target"].astype(jnp.int32)
    dlr = losses.dlr_targeted(part["preds"], labels, targets)
    np.testing.assert_allclose(dlr, part["dlr_targeted"], atol=1e-5)
    for base, name in ((losses.cross_entropy(part["preds"], labels), "ce"), (dlr, "dlr")):
        ours = mixing.evading_loss(base, part["gammas"], weight=part["simple_w"])
        np.testing.assert_allclose(ours, part[f"simple_{name}_attack"], atol=1e-5)


def test_detector_loss_is_finite_far_out():
    gamma = jnp.float32([-1e30, -200.0, 200.0, 1e30])
    for attacked in (0, 1):
        value, grad = jax.value_and_grad(
            lambda g, a=attacked: mixing.detector_loss(g, jnp.full(4, a)).sum()
        )(gamma)
        assert jnp.isfinite(value)
        assert jnp.isfinite(grad).all()


def test_presets_are_ranges_in_the_unit_interval():
    for preset in mixing.ADAPTIVE_SMOOTHING.values():
        assert 0 <= preset.alpha_bias < preset.alpha_bias + preset.alpha_scale <= 1 + 1e-9
    edm = mixing.ADAPTIVE_SMOOTHING["cifar10-edm"]
    assert (edm.std_scale, edm.rob_scale, edm.gamma_bias) == (1.2, 0.3, 1.05)
