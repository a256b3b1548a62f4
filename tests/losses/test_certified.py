"""Losses of certified training against one step of the authors' code: values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import bounds, losses
from jaxrobust.inputs import InputError
from tests.bounds.nets import forward, operations, params_of

CASES = ["ibp", "ibp_kappa", "sabr0", "mtl0", "mtl1", "exp0", "exp1", "cc0"]


def losses_of(case, data, params):
    """Per example, as the step of a case computes them."""
    ops, y = operations(data), data["labels"]
    x = jnp.asarray(data["x"], jnp.float64)
    statistics = {} if "params.n1_mean" in data else None
    clean = forward(ops, params, x, statistics)

    def logits_fn(images):
        return forward(ops, params, images, statistics)

    low, high = (
        jnp.asarray(data.get(f"{case}.box_{side}", data[f"ibp.box_{side}"]))
        for side in ("lower", "upper")
    )
    method = {"crown": "crown", "crown_ibp": "crown-ibp"}.get(case, "ibp")
    margins = bounds.margins(logits_fn, x, y, lower=low, upper=high, method=method)
    if case == "ibp_kappa":
        kappa = data["ibp_kappa.kappa"]
        return (1 - kappa) * losses.cross_entropy(clean, y) + kappa * losses.certified(margins)
    name = case.rstrip("01")
    if name in ("ibp", "sabr", "crown", "crown_ibp"):
        return losses.certified(margins)
    loss = {"mtl": losses.mtl_ibp, "exp": losses.exp_ibp, "cc": losses.cc_ibp}[name]
    adversarial = logits_fn(jnp.asarray(data[f"{case}.x_adv"]))
    return loss(margins, adversarial, y, alpha=data[f"{case}.coef"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("file", "case"),
    [("plain", case) for case in [*CASES, "crown_ibp", "crown"]] + [("bn", case) for case in CASES],
)
def test_loss_and_gradients_are_the_authors(golden, file, case):
    data = golden(f"bounds_train_{file}")
    params = params_of(data)

    @jax.jit
    def step(params):
        found = losses_of(case, data, params)
        return found.mean(), found

    (_, found), grads = jax.value_and_grad(step, has_aux=True)(params)
    np.testing.assert_allclose(found, data[f"{case}.loss"], rtol=1e-8)
    stored = {k.rsplit(".", 1)[1]: v for k, v in data.items() if k.startswith(f"{case}.grad.")}
    assert stored
    for name, wanted in stored.items():
        np.testing.assert_allclose(grads[name], wanted, rtol=1e-8, atol=1e-8)


LOSSES = [losses.mtl_ibp, losses.exp_ibp, losses.cc_ibp]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_ends_of_alpha(loss):
    rng = np.random.default_rng(0)
    margins, logits = jnp.asarray(rng.normal(size=(2, 5, 4)), jnp.float32)
    y = jnp.arange(5) % 4
    margins = margins.at[jnp.arange(5), y].set(0)
    np.testing.assert_allclose(
        loss(margins, logits, y, alpha=1.0), losses.certified(margins), rtol=1e-6
    )
    np.testing.assert_allclose(
        loss(margins, logits, y, alpha=0.0), losses.cross_entropy(logits, y), rtol=1e-6
    )


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gradients_are_finite_at_extreme_values(loss, alpha):
    rows = jnp.stack([jnp.eye(4)[1] * 1e4, jnp.eye(4)[1] * -1e4, jnp.zeros(4), jnp.full(4, 1e4)])
    y = jnp.arange(4)
    total = lambda m, z: loss(m, z, y, alpha=alpha).sum()  # noqa: E731
    for margins in (rows, rows[::-1]):
        for grad in jax.grad(total, (0, 1))(margins, rows):
            assert np.isfinite(grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_two_classes_any_leading_axes_and_a_weight_per_example(loss):
    rng = np.random.default_rng(0)
    margins, logits = jnp.asarray(rng.normal(size=(2, 2, 3, 2)), jnp.float32)
    y, alpha = jnp.asarray(rng.integers(2, size=(2, 3))), jnp.linspace(0, 1, 6).reshape(2, 3)
    each = [loss(margins[at], logits[at], y[at], alpha=alpha[at]) for at in np.ndindex(alpha.shape)]
    together = loss(margins, logits, y, alpha=alpha)
    np.testing.assert_allclose(together, np.reshape(each, alpha.shape), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_soft_labels_and_other_shapes_are_refused(loss):
    z = jnp.zeros((2, 4))
    with pytest.raises(InputError, match="labels"):
        loss(z, z, jnp.full((2, 4), 0.25), alpha=0.5)
    for alpha in (-0.1, 1.5, np.nan):
        with pytest.raises(InputError, match="alpha must be"):
            loss(z, z, jnp.array([0, 1]), alpha=alpha)
    with pytest.raises(InputError, match="margins must have the shape of adv_logits"):
        loss(z[:1], z, jnp.array([0, 1]), alpha=0.5)
