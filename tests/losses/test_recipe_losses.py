"""Losses of the recipes after the seeds: values and gradients of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxrobust import losses

DTYPES = [np.float64, np.float32]
CASES = ("v1", "gkl", "temp", "mse", "sce", "ikl0")


def close(found, stored, dtype):
    tolerance = 1e-8 if dtype == np.float64 else 1e-4
    scale = max(np.abs(stored).max(), 1e-3)
    np.testing.assert_allclose(found, stored, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_gkl_is_the_authors(golden, name, dtype):
    with jax.enable_x64(dtype == np.float64):
        data = golden("beyond_public_gkl")
        natural, adversarial, prior = (
            jnp.asarray(data[f"loss.{key}"], dtype)
            for key in ("natural", "adversarial", "class_prior")
        )
        labels = jnp.asarray(data["loss.labels"], jnp.int32)
        names = ("alpha", "beta", "temperature", "gamma")
        options = {key: float(data[f"loss.{name}.{key}"]) for key in names}

        def loss(natural, adversarial):
            each = losses.gkl(natural, adversarial, labels, prior, **options)
            return each.mean(), each

        both = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (value, each), grads = both(natural, adversarial)
        close(value, data[f"loss.{name}.value"], dtype)
        close(each, data[f"loss.{name}.per_example"], dtype)
        close(grads[0], data[f"loss.{name}.grad_natural"], dtype)
        close(grads[1], data[f"loss.{name}.grad_adversarial"], dtype)


@pytest.mark.usefixtures("float64")
def test_the_linear_form_of_the_squared_error_is_the_sum_over_pairs(golden):
    data = golden("beyond_public_gkl")
    weights, e = data["identity.weights"], np.asarray(data["loss.natural"])
    e = e - data["loss.adversarial"]
    pairs = np.einsum("bj,bl,bjl->b", weights, weights, (e[:, :, None] - e[:, None]) ** 2)
    np.testing.assert_allclose(pairs, data["identity.pairs"], rtol=1e-10)
    rows = np.broadcast_to(np.arange(6) % 10, 6)
    prior = np.full((10, 10), 0.1)
    prior[:6] = weights
    without = {"alpha": 0.0, "normaliser": 1.0}
    each = losses.gkl(
        data["loss.natural"], data["loss.adversarial"], rows, prior, beta=4, **without
    )
    none = losses.gkl(
        data["loss.natural"], data["loss.adversarial"], rows, prior, beta=0, **without
    )
    np.testing.assert_allclose(each - none, data["identity.linear"], rtol=1e-10)
    np.testing.assert_allclose(each - none, pairs, rtol=1e-10)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["step_v1", "step_v2", "step_v2low", "step_v2c100"])
def test_the_class_prior_of_two_epochs_is_the_authors(golden, name):
    data = golden("beyond_public_gkl")
    logits, labels = data[f"{name}.logits_natural_all"], data[f"{name}.labels_all"]
    prior = jnp.full((10, 10), 0.1)
    for epoch in range(2):
        counts = jnp.zeros((10, 10))
        for step in range(3 * epoch, 3 * epoch + 3):
            counts += losses.class_prior_counts(
                logits[step], labels[step], temperature=float(data[f"{name}.temperature"])
            )
        present = np.unique(labels[3 * epoch : 3 * epoch + 3])
        new = losses.class_prior(counts, prior)
        absent = np.setdiff1d(np.arange(10), present)
        np.testing.assert_array_equal(new[absent], prior[absent])
        stored = data[f"{name}.class_prior_epoch"][epoch]
        np.testing.assert_allclose(new[present], stored[present], rtol=1e-10)
        prior = new


def test_gkl_needs_little_memory_for_many_classes_and_is_finite_at_extremes():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    prior = jnp.array([[1.0, 0.0, 0.0]] * 3)

    def loss(a, b):
        options = {"alpha": 1.0, "beta": 1.0, "gamma": 0.2}
        return losses.gkl(a, b, jnp.array([1]), prior, **options).sum()

    grads = jax.grad(loss, (0, 1))(logits, -logits)
    assert np.isfinite(np.asarray(grads)).all()
    many, labels = jnp.zeros((4, 1000)), jnp.zeros(4, jnp.int32)
    options = {"alpha": 1.0, "beta": 1.0}
    traced = jax.make_jaxpr(lambda z, p: losses.gkl(z, z, labels, p, **options))(
        many, jnp.full((1000, 1000), 1e-3)
    )
    assert max(v.aval.size for e in traced.eqns for v in e.outvars) <= 1_000_000


def test_gkl_of_two_classes():
    z, prior = jnp.zeros((1, 2)), jnp.full((2, 2), 0.5)
    value = losses.gkl(z, z, jnp.array([1]), prior, alpha=4.0, beta=20.0)
    np.testing.assert_allclose(value, 5 * np.log(2), rtol=1e-6)


def test_a_class_without_examples_has_a_prior_with_finite_gradients():
    counts, previous = jnp.diag(jnp.array([3.0, 0.0])), jnp.full((2, 2), 0.5)
    grads = jax.jacobian(losses.class_prior, (0, 1))(counts, previous)
    assert all(np.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["hat", "hat_h2", "hat_wa"])
def test_hat_is_the_authors(golden, name, dtype):
    with jax.enable_x64(dtype == np.float64):
        data = golden("beyond_public_teacher")
        logits = [
            data[f"{name}.logits_{view}"].astype(dtype) for view in ("clean", "adv", "helper")
        ]
        options = {key: float(data[f"{name}.{key}"]) for key in ("beta", "gamma")}
        smoothing = float(data.get(f"{name}.label_smoothing", 0.0))
        each = losses.hat(
            *logits, data["y"], data[f"{name}.helper_labels"], label_smoothing=smoothing, **options
        )
        close(each, data[f"{name}.loss_per_example"], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("step", ["nuat.s2", "nuat.s3"])
def test_the_nuclear_norm_is_the_authors(golden, step, dtype):
    with jax.enable_x64(dtype == np.float64):
        data = golden("beyond_public_memory")
        clean, adv = (jnp.asarray(data[f"{step}.logits_{v}"], dtype) for v in ("clean", "adv"))
        close(losses.nuclear(clean, adv), data[f"{step}.nuclear"], dtype)


@pytest.mark.usefixtures("float64")
def test_the_nuclear_norms_derivative_is_the_polar_factor():
    a, b = (jax.random.normal(jax.random.key(n), (4, 3)) for n in range(2))

    check_grads(losses.nuclear, (a, b), order=1, modes=["rev", "fwd"])
    same = jax.grad(losses.nuclear)(a, a)
    np.testing.assert_array_equal(same, 0)
    # Two equal singular values, where the derivative of each alone does not exist.
    grad = jax.grad(losses.nuclear)(jnp.eye(3), jnp.zeros((3, 3)))
    np.testing.assert_allclose(grad, np.eye(3) / 3, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ramp_is_the_authors(golden, dtype):
    with jax.enable_x64(dtype == np.float64):
        data = golden("beyond_public_union")
        views = [data[f"ramp.logits_{view}"].astype(dtype) for view in ("source", "target", "best")]
        labels = data["y"][:6]
        each = losses.ramp(*views, labels, lbd=float(data["ramp.lbd"]))
        close(each.mean(), data["ramp.loss"], dtype)
        plain = losses.ramp(*views, labels, lbd=0.0)
        close(each, data["ramp.loss_per_example"], dtype)
        close((each - plain).mean() / float(data["ramp.lbd"]), data["ramp.loss_kl"], dtype)


def test_ramp_of_two_classes():
    z, labels = jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.array([1, 1])
    pairing = losses.ramp(z, -z, z, labels, lbd=1.0) - losses.cross_entropy(z, labels)
    wanted = 2 * losses.kl_divergence(z[:1], -z[:1])[0]  # half of the source images are right
    np.testing.assert_allclose(pairing, [wanted, 0], atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_ramp_pairs_nothing_where_no_source_image_is_right(golden):
    data = golden("beyond_public_union")
    logits, labels = data["ramp_none.natural"], data["ramp_none.labels"]
    target, best = data["ramp.logits_target"], data["ramp.logits_best"]
    each = losses.ramp(logits, target, best, labels, lbd=5.0)
    np.testing.assert_allclose(each.mean(), data["ramp_none.loss"], rtol=1e-10)
    grad = jax.grad(lambda z: losses.ramp(z, -z, z, labels, lbd=5.0).mean())(jnp.asarray(logits))
    assert np.isfinite(grad).all()
    half = losses.ramp(logits, -logits, logits, logits.argmax(-1), lbd=1.0, share=0.5)
    whole = losses.ramp(logits, -logits, logits, logits.argmax(-1), lbd=1.0, share=1.0)
    none = losses.ramp(logits, -logits, logits, logits.argmax(-1), lbd=0.0)
    np.testing.assert_allclose(half - none, 2 * (whole - none), rtol=1e-10)
