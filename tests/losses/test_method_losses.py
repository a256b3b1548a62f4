"""SCORE, MART, GAIRAT and GAIR-TRADES against one step of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, losses, threats
from tests.tiny import tiny_logits, tiny_params

DTYPES = [np.float64, np.float32]


def setting(golden, file, dtype):
    data = golden(file)
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), tiny_params(data))
    return data, params, jnp.asarray(data["x"], dtype), jnp.asarray(data["y"], jnp.int32)


def agrees(loss, params, data, case, dtype):
    """The mean loss and its gradients are the stored ones."""
    tolerance = 1e-8 if dtype == np.float64 else 1e-4
    value, grads = jax.value_and_grad(lambda p: loss(p).mean())(params)
    np.testing.assert_allclose(value, data[f"{case}.loss"], rtol=tolerance)
    for key, grad in grads.items():
        stored = data[f"{case}.grad.{key}"]
        np.testing.assert_allclose(
            grad, stored, rtol=tolerance, atol=tolerance * np.abs(stored).max()
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["lse_linf", "lse_linf_ls_clip", "lse_l2"])
def test_score_is_the_authors(golden, case, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, "at_public_score", dtype)
        x_adv = jnp.asarray(data[f"{case}.x_adv"], dtype)
        options = {
            "beta": data[f"{case}.beta"],
            "label_smoothing": float(data[f"{case}.label_smoothing"]),
            "clip": float(data[f"{case}.clip_value"]),
        }
        agrees(
            lambda p: losses.score(tiny_logits(p, x)[0], tiny_logits(p, x_adv)[0], y, **options),
            params,
            data,
            case,
            dtype,
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_mart_is_the_authors(golden, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, "at_public_core", dtype)
        x_adv = jnp.asarray(data["mart.x_adv"], dtype)
        beta = data["mart.beta"]
        agrees(
            lambda p: losses.mart(tiny_logits(p, x)[0], tiny_logits(p, x_adv)[0], y, beta=beta),
            params,
            data,
            "mart",
            dtype,
        )


KINDS = {
    "e60_lm1": "tanh",
    "e100_l0": "tanh",
    "e60_l1_sigmoid": "sigmoid",
    "e60_discrete": "discrete",
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["burnin", *KINDS])
def test_gairat_kappa_weights_and_loss_are_the_authors(golden, key, case, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, "at_public_gairat", dtype)
        steps, lam = int(data[f"{case}.steps"]), float(data[f"{case}.Lambda"])
        start = jnp.clip(x + jnp.asarray(data[f"{case}.noise"], dtype), 0, 1) - x
        attacked = attacks.pgd(
            lambda images: tiny_logits(params, images)[0],
            key,
            x,
            y,
            threat=threats.linf(data[f"{case}.eps"]),
            steps=steps,
            step_size=data[f"{case}.step"],
            start=start,
        )
        np.testing.assert_array_equal(attacked.kappa, data[f"{case}.kappa"])
        tolerance = 1e-8 if dtype == np.float64 else 1e-5
        np.testing.assert_allclose(attacked.images, data[f"{case}.x_adv"], atol=tolerance)
        kind = KINDS.get(case, "tanh")
        weights = losses.gairat_weights(attacked.kappa, num_steps=steps, lam=lam, kind=kind)
        expected = data.get(f"{case}.weights", np.ones(len(y)))
        np.testing.assert_allclose(weights, expected, rtol=1e-8 if dtype == np.float64 else 1e-5)
        x_adv = jnp.asarray(data[f"{case}.x_adv"], dtype)

        def loss(p):
            logits = tiny_logits(p, x_adv)[0]
            if kind == "tanh":
                return losses.gairat(logits, y, attacked.kappa, num_steps=steps, lam=lam)
            return weights * losses.cross_entropy(logits, y)

        agrees(loss, params, data, case, dtype)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("kind", ["Tanh", "Sigmoid", "Discrete"])
def test_weight_tables_are_the_authors(golden, kind):
    data = golden("at_public_gairat")
    tables = [k for k in data if k.startswith(f"weights.{kind}[") or k == f"weights.{kind}"]
    assert tables
    for name in tables:
        table = np.atleast_2d(data[name])
        lams = data.get("weights.Lambda", data.get("weights.lambdas"))
        assert lams is not None
        for row, lam in zip(table, np.atleast_1d(lams), strict=True):
            kappa = np.arange(len(row))
            found = losses.gairat_weights(kappa, num_steps=len(row) - 1, lam=lam, kind=kind.lower())
            np.testing.assert_allclose(found, row, rtol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", ["lam0", "lam3"])
def test_gair_trades_is_the_authors(golden, case, dtype):
    with jax.enable_x64(dtype == np.float64):
        data, params, x, y = setting(golden, "at_public_gairrst", dtype)
        x_kl, x_cw = (jnp.asarray(data[f"{case}.{n}"], dtype) for n in ("x_adv", "x_adv_cw"))
        options = {
            "beta": data[f"{case}.beta"],
            "num_steps": int(data[f"{case}.steps"]),
            "lam": float(data[f"{case}.Lambda"]),
        }

        def loss(p):
            logits = (tiny_logits(p, images)[0] for images in (x, x_kl, x_cw))
            return losses.gair_trades(*logits, y, data[f"{case}.kappa"], **options)

        agrees(loss, params, data, case, dtype)


def test_weights_at_extremes():
    kappa = jnp.array([0, 5, 10])
    for lam in (-200.0, -1.0, 0.0, 50.0, jnp.inf):
        weights = losses.gairat_weights(kappa, num_steps=10, lam=lam)
        assert np.isfinite(np.asarray(weights)).all()
        assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(weights, 1)
    same = losses.gairat_weights(jnp.full(4, 10), num_steps=10, lam=-2.0)
    np.testing.assert_allclose(same, 1, rtol=1e-6)
    with pytest.raises(ValueError, match="num_steps must be at least 2 for kind 'tanh', got 1"):
        losses.gairat_weights(kappa, num_steps=1, lam=0.0)
    with pytest.raises(ValueError, match="kind must be 'tanh', 'sigmoid' or 'discrete'"):
        losses.gairat_weights(kappa, num_steps=10, lam=0.0, kind="Tanh")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_are_finite_at_extreme_logits(dtype):
    extreme = jnp.asarray(
        np.stack([np.eye(10)[3] * 1e4, np.eye(10)[1] * -1e4, np.zeros(10), np.full(10, 1e4)]), dtype
    )
    labels, kappa = jnp.arange(4), jnp.array([0, 3, 7, 10])
    functions = {
        "score": lambda a, b: losses.score(a, b, labels, beta=3.0, clip=0.1),
        "mart": lambda a, b: losses.mart(a, b, labels, beta=6.0),
        "gairat": lambda a, b: (
            losses.gairat(b, labels, kappa, num_steps=10, lam=-1.0)
            + 0 * a.astype(jnp.float32).sum(-1)
        ),
        "gair_trades": lambda a, b: losses.gair_trades(
            a, b, b[::-1], labels, kappa, beta=6.0, num_steps=10, lam=0.0
        ),
    }
    for name, fn in functions.items():
        for other in (extreme[::-1], extreme):
            grads = jax.grad(lambda a, b, fn=fn: fn(a, b).sum(), (0, 1))(extreme, other)
            for grad in grads:
                assert np.isfinite(np.asarray(grad, np.float32)).all(), name
