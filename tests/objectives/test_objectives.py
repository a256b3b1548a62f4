"""Objectives and the train step against one step of the authors' code."""

from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import objectives, threats
from jaxrobust.devices import device_mesh
from jaxrobust.networks import network
from jaxrobust.objectives import Batch, Views
from jaxrobust.training import StepSettings, TrainState, make_train_step
from tests.tiny import TinyNet, tiny_logits, tiny_params, tiny_variables


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Injected:
    """An objective whose attack is replaced by stored adversarial images."""

    objective: Any
    adversarial: jax.Array

    attack_statistics = "running"

    @property
    def passes(self):
        return self.objective.passes

    def inner(self, logits_fn, key, batch, threat):
        return Views({"adv": self.adversarial}, {})

    def outer(self, logits, batch, extras):
        return self.objective.outer(logits, batch, extras)


def one_step(data, objective, x_adv, devices=1):
    """Gradients (as an SGD update of rate 1), loss and statistics of one step of `TinyNet`."""
    variables = tiny_variables(data)
    optimizer = optax.sgd(1.0)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(0)),
    )
    before = jax.device_get(state)
    step = make_train_step(StepSettings(optimizer), device_mesh(jax.devices()[:devices]))
    order = jnp.arange(len(data["y"]), dtype=jnp.int32)[None]
    parts = Injected(objective, x_adv), threats.linf(0.031), network(TinyNet())
    after, metrics = step(state, data["x_u8"], data["y"], order, *parts)
    grads = jax.tree.map(lambda a, b: a - np.asarray(b), before.params, after.params)
    return grads, metrics, after.batch_stats


@pytest.mark.usefixtures("float64")
def test_trades_step_with_batch_norm_is_the_authors(golden):
    data = golden("at_public_trades")
    objective = objectives.trades(beta=data["bn_linf.beta"], clean_passes=2)
    grads, metrics, statistics = one_step(data, objective, jnp.asarray(data["bn_linf.x_adv"]))
    np.testing.assert_allclose(metrics["loss"], data["bn_linf.loss"], rtol=1e-8)
    for layer, leaves in grads.items():
        for name, grad in leaves.items():
            np.testing.assert_allclose(grad, data[f"bn_linf.grad.{layer}_{name}"], atol=1e-8)
    # Three updates in the order clean, adversarial, clean.
    np.testing.assert_allclose(statistics["bn"]["mean"], data["bn_linf.bn_mean_after"], atol=1e-8)
    np.testing.assert_allclose(statistics["bn"]["var"], data["bn_linf.bn_var_after"], atol=1e-8)


@pytest.mark.usefixtures("float64")
def test_the_efficient_form_has_the_same_loss_and_gradients_but_other_statistics(golden):
    data = golden("at_public_trades")
    x_adv = jnp.asarray(data["bn_linf.x_adv"])
    grads2, metrics2, stats2 = one_step(data, objectives.trades(beta=6.0, clean_passes=2), x_adv)
    grads1, metrics1, stats1 = one_step(data, objectives.trades(beta=6.0), x_adv)
    chex.assert_trees_all_close(grads1, grads2, atol=1e-12)
    np.testing.assert_allclose(metrics1["loss"], metrics2["loss"], rtol=1e-12)
    assert not np.allclose(stats1["bn"]["mean"], stats2["bn"]["mean"], atol=1e-6)


@pytest.mark.parametrize("name", ["linf", "l2"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_trades_loss_and_gradients_are_the_authors(golden, name, dtype):
    data = golden("at_public_trades")
    with jax.enable_x64(dtype == np.float64):
        params = jax.tree.map(lambda a: jnp.asarray(a, dtype), tiny_params(data))
        x, x_adv = (jnp.asarray(a, dtype) for a in (data["x"], data[f"{name}.x_adv"]))
        objective = objectives.trades(beta=float(data[f"{name}.beta"]))
        batch = Batch(x, jnp.asarray(data["y"], jnp.int32))

        def loss(params):
            logits = {"clean": tiny_logits(params, x)[0], "adv": tiny_logits(params, x_adv)[0]}
            return objective.outer(logits, batch, {})[0].mean()

        value, grads = jax.value_and_grad(loss)(params)
        tolerance = 1e-8 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(value, data[f"{name}.loss"], rtol=tolerance)
        for key, grad in grads.items():
            stored = data[f"{name}.grad.{key}"]
            np.testing.assert_allclose(
                grad, stored, rtol=tolerance, atol=tolerance * np.abs(stored).max()
            )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["pgdat_linf", "pgdat_l2"])
def test_pgd_at_loss_and_gradients_are_the_authors(golden, name):
    data = golden("at_public_core")
    params = tiny_params(data)
    batch = Batch(jnp.asarray(data["x"]), jnp.asarray(data["y"]))
    x_adv = jnp.asarray(data[f"{name}.x_adv"])

    def loss(params):
        logits = {"adv": tiny_logits(params, x_adv)[0]}
        return objectives.pgd_at().outer(logits, batch, {})[0].mean()

    value, grads = jax.value_and_grad(loss)(params)
    np.testing.assert_allclose(value, data[f"{name}.loss"], rtol=1e-8)
    for key, grad in grads.items():
        np.testing.assert_allclose(grad, data[f"{name}.grad.{key}"], atol=1e-8)


@pytest.mark.parametrize("make", [objectives.pgd_at, objectives.trades])
def test_inner_attacks_raise_the_loss_inside_the_threat(make, key):
    weights = jax.random.normal(key, (64, 10))

    def logits_fn(x):
        return jnp.tanh(x.reshape(len(x), -1) - 0.5) @ weights

    images = jax.random.uniform(key, (8, 8, 8, 1))
    batch = Batch(images, logits_fn(images).argmax(1))
    objective = make(steps=5)
    views = objective.inner(logits_fn, key, batch, threats.linf(0.1))
    adversarial = views.images["adv"]
    assert float(jnp.abs(adversarial - images).max()) <= 0.1 + 1e-6
    logits = {"clean": logits_fn(images), "adv": logits_fn(adversarial)}
    attacked, _ = objective.outer(logits, batch, {})
    clean, _ = objective.outer(logits | {"adv": logits["clean"]}, batch, {})
    assert (attacked > clean).all()


def test_hyper_parameters_are_leaves_and_steps_are_structure():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def outer(objective, logits):
        batch = Batch(jnp.zeros((2, 1, 1, 1)), jnp.array([0, 1]))
        return objective.outer({"clean": logits, "adv": -logits}, batch, {})[0]

    logits = jnp.eye(2)
    losses = [float(outer(objectives.trades(beta=b), logits).sum()) for b in (0.0, 1.0, 6.0)]
    assert losses == sorted(losses)
    assert losses[2] > losses[1] > losses[0]
    one, other = (jax.tree.structure(objectives.trades(steps=n)) for n in (5, 10))
    assert one != other


class ProbeNet(TinyNet):
    """Tells by its output whether it was run in training mode."""

    def __call__(self, images, *, train=False):
        mode = 1.0 if train else 0.0
        return jnp.broadcast_to(images.mean((1, 2, 3))[:, None] + mode, (len(images), 10))

    def clone(self, **kwargs):
        return self


@pytest.mark.parametrize(("mode", "expected"), [("running", 0.0), ("batch", 1.0)])
def test_the_attack_sees_the_batch_norm_mode_of_the_objective(mode, expected):
    from jaxrobust.training._step import _attack_logits_fn

    objective = objectives.pgd_at(attack_statistics=mode)
    state = TrainState(0, params={}, batch_stats={}, opt_state=(), ema_params=None, key=None)
    fn = _attack_logits_fn(network(ProbeNet()), state, objective, jax.random.key(0))
    assert float(fn(jnp.zeros((1, 2, 2, 1)))[0, 0]) == expected


def test_batch_statistics_in_the_attack_leave_the_running_ones_alone(golden):
    """Attack in batch mode: the running statistics see the outer passes only."""
    data = golden("at_public_trades")
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tiny_variables(data))
    model, x = TinyNet(), jnp.asarray(data["x"], jnp.float32)
    expected = variables["batch_stats"]
    for _ in range(2):  # clean, then adversarial: with eps 0 the same images
        _, updated = model.apply(
            {"params": variables["params"], "batch_stats": expected},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        expected = updated["batch_stats"]
    objective = objectives.trades(beta=1.0, attack_statistics="batch", steps=3)
    optimizer = optax.sgd(0.0)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(0)),
    )
    step = make_train_step(StepSettings(optimizer), device_mesh(jax.devices()[:1]))
    order = jnp.arange(len(x), dtype=jnp.int32)[None]
    labels = data["y"].astype(np.int32)
    parts = objective, threats.linf(0.0), network(model)
    after, _ = step(state, data["x_u8"], labels, order, *parts)
    chex.assert_trees_all_close(after.batch_stats, expected, atol=1e-6)


def test_all_traces_of_a_training_run_are_one(golden):
    """A sweep of beta and eps through the train step compiles once."""
    data = golden("at_public_trades")
    traces = []

    class Counting(TinyNet):
        def __call__(self, images, *, train=False):
            if train:
                traces.append(images.shape)
            return super().__call__(images, train=train)

    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), tiny_variables(data))
    optimizer = optax.sgd(0.1)
    step = make_train_step(StepSettings(optimizer), device_mesh(jax.devices()[:1]))
    order = jnp.arange(6, dtype=jnp.int32)[None]
    counts = []
    for beta, eps in ((1.0, 0.01), (6.0, 0.02), (3.0, 0.031)):
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=jax.tree.map(jnp.copy, variables["params"]),
            batch_stats=jax.tree.map(jnp.copy, variables["batch_stats"]),
            opt_state=optimizer.init(variables["params"]),
            ema_params=None,
            key=jax.random.key_data(jax.random.key(0)),
        )
        objective = jax.tree.map(jnp.float32, objectives.trades(beta=beta, steps=2))
        parts = objective, threats.linf(eps), network(Counting())
        step(state, data["x_u8"], data["y"].astype(np.int32), order, *parts)
        counts.append(len(traces))
    assert counts[0] == counts[2] > 0


def test_default_step_size_crosses_the_ball():
    assert float(threats.default_step(threats.linf(0.1), 10)) == pytest.approx(0.025)
    assert threats.default_step(threats.spatial(30, 3), 10) == 0.25
    both = threats.default_step(threats.compose(threats.spatial(30, 3), threats.linf(0.1)), 10)
    assert [float(step) for step in both] == [0.25, pytest.approx(0.025)]
    with pytest.raises(ValueError, match="step_size must be given for object"):
        threats.default_step(object(), 10)
