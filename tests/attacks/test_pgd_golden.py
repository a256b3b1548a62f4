"""PGD against the adversarial images of the authors' code, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from tests.tiny import tiny_logits, tiny_params

pytestmark = pytest.mark.usefixtures("float64")


def case(data, name):
    return {k.removeprefix(f"{name}."): v for k, v in data.items() if k.startswith(f"{name}.")}


@pytest.mark.parametrize("name", ["linf", "l2", "bn_linf"])
def test_trades_attack(golden, key, name):
    data = golden("at_public_trades")
    c = case(data, name)
    params = tiny_params(data, "params_bn" if name.startswith("bn") else "params")
    x, y = jnp.asarray(data["x"]), jnp.asarray(data["y"])

    def logits_fn(images):
        return tiny_logits(params, images)[0]

    clean = logits_fn(x)
    threat = (threats.l2 if name == "l2" else threats.linf)(c["eps"])
    attacked = attacks.pgd(
        logits_fn,
        key,
        x,
        y,
        threat=threat,
        loss=lambda logits, labels: losses.kl_divergence(clean, logits),
        steps=int(c["steps"]),
        step_size=c["step"],
        start=c["noise"],
    )
    np.testing.assert_allclose(attacked.images, c["x_adv"], atol=1e-8, rtol=0)


def test_trades_evaluation_attack(golden, key):
    data = golden("at_public_trades")
    c = case(data, "eval_pgd20")
    params = tiny_params(data)
    attacked = attacks.pgd(
        lambda images: tiny_logits(params, images)[0],
        key,
        jnp.asarray(data["x"]),
        jnp.asarray(data["y"]),
        threat=threats.linf(c["eps"]),
        steps=int(c["steps"]),
        step_size=c["step"],
        start=c["noise"].astype(np.float64),
    )
    np.testing.assert_allclose(attacked.images, c["x_adv"], atol=1e-8, rtol=0)
    assert int(attacked.success.sum()) == int(c["err_pgd"])


@pytest.mark.parametrize("name", ["pgdat_linf", "pgdat_l2", "eval_cw"])
def test_madry_attack_and_margin_attack(golden, key, name):
    data = golden("at_public_core")
    c = case(data, name)
    params = tiny_params(data)
    x, y = jnp.asarray(data["x"]), jnp.asarray(data["y"])
    if name == "pgdat_l2":
        threat = threats.l2(c["eps"], slack=0.0)  # this code base scales onto the sphere
        noise = jnp.asarray(c["noise_raw"]) - x
        norms = jnp.linalg.norm(noise.reshape(len(x), -1), axis=1)[:, None, None, None]
        start = noise * jnp.minimum(1, c["eps"] / norms)
    else:
        threat = threats.linf(c["eps"])
        start = c["eps"] * jnp.asarray(c["noise_raw"])
    start = jnp.clip(x + start, 0, 1) - x

    def clamped_margin(logits, labels):  # nothing is gained beyond a misclassification
        return jnp.minimum(losses.margin(logits, labels), 0)

    attacked = attacks.pgd(
        lambda images: tiny_logits(params, images)[0],
        key,
        x,
        y,
        threat=threat,
        loss=clamped_margin if name == "eval_cw" else losses.cross_entropy,
        steps=int(c["steps"]),
        step_size=c["step"],
        start=start,
    )
    np.testing.assert_allclose(attacked.images, c["x_adv"], atol=1e-8, rtol=0)


def test_float32_agrees_too(golden, key):
    data = golden("at_public_trades")
    c = case(data, "linf")
    params = jax.tree.map(lambda a: a.astype(jnp.float32), tiny_params(data))
    x = jnp.asarray(data["x"], jnp.float32)

    def logits_fn(images):
        return tiny_logits(params, images)[0]

    clean = logits_fn(x)
    attacked = attacks.pgd(
        logits_fn,
        key,
        x,
        jnp.asarray(data["y"]),
        threat=threats.linf(c["eps"]),
        loss=lambda logits, labels: losses.kl_divergence(clean, logits),
        steps=int(c["steps"]),
        step_size=c["step"],
        start=c["noise"].astype(np.float32),
    )
    assert attacked.images.dtype == jnp.float32
    np.testing.assert_allclose(attacked.images, c["x_adv"], atol=1e-5, rtol=0)
