"""Binary TRADES with the hinge loss against the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from tests.tiny import tiny_logits, tiny_params

DTYPES = [np.float64, np.float32]


def setting(golden, dtype):
    data = golden("at_public_trades")
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), tiny_params(data, "params_bin"))
    x = jnp.asarray(data["bin.x_u8"] / 255, dtype)
    return data, params, x, jnp.asarray(data["bin.y"], jnp.int32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loss_and_gradients_are_the_authors(golden, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, dtype)
        x_adv, lam = jnp.asarray(data["bin.x_adv"], dtype), data["bin.lam"]

        def loss(p):
            clean, adv = tiny_logits(p, x)[0], tiny_logits(p, x_adv)[0]
            return losses.binary_trades(clean, adv, y, lam=lam).mean()

        value, grads = jax.value_and_grad(loss)(params)
        tolerance = 1e-8 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(value, data["bin.loss"], rtol=tolerance)
        for name, grad in grads.items():
            stored = data[f"bin.grad.{name}"]
            atol = tolerance * np.abs(stored).max()
            np.testing.assert_allclose(grad, stored, rtol=tolerance, atol=atol, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["bin", "bin_eval"])
def test_attack_images_are_the_authors(golden, key, case, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, dtype)

        def logits_fn(images):
            return tiny_logits(params, images)[0]

        clean = logits_fn(x)
        objective = {
            "bin": lambda f, _: losses.binary_boundary(clean, f, lam=data["bin.lam"]),
            "bin_eval": losses.exponential,
        }[case]
        attacked = attacks.pgd(
            logits_fn,
            key,
            x,
            y,
            threat=threats.linf(data.get(f"{case}.eps", data["bin.eps"])),
            loss=objective,
            steps=int(data.get(f"{case}.steps", data["bin.steps"])),
            step_size=data.get(f"{case}.step", data["bin.step"]),
            start=jnp.asarray(data[f"{case}.noise"], dtype),
        )
        tolerance = 1e-8 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(attacked.images, data[f"{case}.x_adv"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_finite_at_extreme_logits(dtype):
    f = jnp.asarray([[1e4], [-1e4], [0.0], [90.0], [-90.0]], dtype)
    adv, y = f[::-1], jnp.array([-1, 1, 1, -1, 1])
    values = {
        "trades": lambda a, b: losses.binary_trades(a, b, y, lam=2.0),
        "exponential": lambda a, b: losses.exponential(a, y) + losses.exponential(b, y),
    }
    for name, fn in values.items():
        value = fn(f, adv)
        assert value.shape == (5,)
        assert value.dtype == jnp.float32
        grads = jax.grad(lambda a, b, fn=fn: fn(a, b).sum(), (0, 1))(f, adv)
        for leaf in (value, *grads):
            assert np.isfinite(np.asarray(leaf, np.float32)).all(), name


def test_bad_arguments():
    f, y = jnp.zeros((2, 1)), jnp.array([1, -1])
    with pytest.raises(ValueError, match=r"labels must be -1 or \+1, got values \[0, 1\]"):
        losses.binary_trades(f, f, jnp.array([0, 1]), lam=1.0)
    with pytest.raises(ValueError, match=r"adv_logits must be of one logit, \[..., 1\]"):
        losses.binary_boundary(f, jnp.zeros((2, 2)), lam=1.0)
    with pytest.raises(ValueError, match="logits must be floating-point"):
        losses.hinge(jnp.zeros((2, 1), int), y)
    jitted = jax.jit(lambda labels: losses.hinge(f, labels))
    np.testing.assert_array_equal(jitted(y), 1)
