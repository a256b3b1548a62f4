"""The golden recipes: stored networks, injected draws, and one whole train step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust.devices import device_mesh
from jaxrobust.networks import network
from jaxrobust.objectives import Sizes, Stateful
from jaxrobust.training import StepSettings, TrainState, make_train_step
from tests.tiny import TinyNet

LAYERS = ("conv1", "conv2", "dense")


def variables(data, prefix, bn=None):
    """Parameters and running statistics stored under a prefix, such as "init."."""
    own = {k: jnp.asarray(data[f"{prefix}{k}"]) for k in names() if f"{prefix}{k}" in data}
    params = {n: {k: own[f"{n}_{k}"] for k in ("kernel", "bias")} for n in LAYERS}
    params["bn"] = {k: own[f"bn_{k}"] for k in ("scale", "bias")}
    mean, var = bn or (own["bn_mean"], own["bn_var"])
    return params, {"bn": {"mean": jnp.asarray(mean), "var": jnp.asarray(var)}}


def names():
    layers = [f"{n}_{k}" for n in LAYERS for k in ("kernel", "bias")]
    return [*layers, "bn_scale", "bn_bias", "bn_mean", "bn_var"]


def injected(monkeypatch, kind, draws):
    """The objectives of a class draw what is stored, of the batch or of each device's part."""
    draws = {k: np.asarray(v) for k, v in draws.items()}
    monkeypatch.setattr(
        kind, "draw", lambda *_, **__: {k: jnp.asarray(v) for k, v in draws.items()}
    )


def one_step(data, objective, threat, *, before, index, state=None, net=None, steps=None, step=0,
             settings=None, sizes=None, devices=1):  # fmt: skip
    """One train step with SGD of rate 1 on chosen examples: the state after it, and metrics.

    The state of the objective is `init_state`'s with what is given.
    """
    params, statistics = jax.tree.map(jnp.asarray, before)
    optimizer = optax.sgd(1.0)
    sizes = sizes or Sizes(10, data["x"].shape[1:], len(data["x_u8"]))
    held = objective.init_state(sizes) | (state or {}) if hasattr(objective, "init_state") else None
    now = TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        batch_stats=statistics,
        opt_state=optimizer.init(params),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(0)),
        objective=None if held is None else jax.tree.map(jnp.asarray, held),
    )
    now = jax.tree.map(jnp.copy, now)
    options = {"steps_per_epoch": steps} | (settings or {})
    program = make_train_step(
        StepSettings(optimizer, **options), device_mesh(jax.devices()[:devices])
    )
    order = jnp.asarray(np.asarray(index)[None], jnp.int32)
    parts = objective, threat, network(net or TinyNet())
    return program(now, data["x_u8"], data["y"], order, *parts)


def check(data, case, before, after, *, atol=1e-8, grad="grad"):
    """Gradients (as a step of rate 1) and running statistics of a step are the stored ones."""
    params, _ = before
    grads = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, after.params)
    for layer, leaves in grads.items():
        for leaf, found in leaves.items():
            stored = data[f"{case}.{grad}.{layer}_{leaf}"]
            np.testing.assert_allclose(found, stored, atol=atol, err_msg=f"{layer} {leaf}")
    np.testing.assert_allclose(
        after.batch_stats["bn"]["mean"], data[f"{case}.bn_mean_after"], atol=atol
    )
    np.testing.assert_allclose(
        after.batch_stats["bn"]["var"], data[f"{case}.bn_var_after"], atol=atol
    )


def training(before):
    """The tiny network in training mode as attacks see it: `Stateful` for "update"."""
    params, statistics = before

    def apply(images, statistics):
        variables = {"params": params, "batch_stats": statistics}
        logits, after = TinyNet().apply(variables, images, train=True, mutable=["batch_stats"])
        return logits, after["batch_stats"]

    return Stateful(apply, statistics)


def evaluated(before):
    """The tiny network in evaluation mode."""
    params, statistics = before
    return lambda images: TinyNet().apply({"params": params, "batch_stats": statistics}, images)
