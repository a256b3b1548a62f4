"""Objectives of certified training against one step of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import bounds, losses, objectives, threats
from jaxrobust.devices import device_mesh
from jaxrobust.inputs import InputError
from jaxrobust.networks import network
from jaxrobust.objectives import Batch, _box_attack
from jaxrobust.training import StepSettings, TrainState, make_train_step
from tests.bounds.nets import forward, operations, params_of

MAKERS = {
    "ibp": lambda case: objectives.ibp(),
    "ibp_kappa": lambda case: objectives.ibp(kappa=case["kappa"]),
    "crown_ibp": lambda case: objectives.crown_ibp(),
    "sabr0": lambda case: objectives.sabr(shrink=case["shrink"], **case["attack"]),
    "mtl0": lambda case: objectives.mtl_ibp(**case["weights"], **case["attack"]),
    "mtl1": lambda case: objectives.mtl_ibp(**case["weights"], **case["attack"]),
    "exp0": lambda case: objectives.exp_ibp(**case["weights"], **case["attack"]),
    "exp1": lambda case: objectives.exp_ibp(**case["weights"], **case["attack"]),
    "cc0": lambda case: objectives.cc_ibp(**case["weights"], **case["attack"]),
}


def settings(data, name):
    case = {k.split(".")[1]: v for k, v in data.items() if k.startswith(f"{name}.")}
    case["attack"] = {"steps": int(data["steps"]), "restarts": int(data["restarts"])}
    case["weights"] = {"alpha": case.get("coef"), "attack_scale": case.get("attack_scale", 1.0)}
    return case


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", MAKERS)
def test_a_step_is_the_authors(golden, monkeypatch, name):
    data = golden("bounds_train_plain")
    case, params, ops = settings(data, name), params_of(data), operations(data)
    monkeypatch.setattr(_box_attack, "fold_keys", lambda keys, restart: restart)
    noise = jnp.asarray(case.get("noise", np.zeros(1)))
    monkeypatch.setattr(_box_attack, "noise_of", lambda restart, images: noise[restart])
    objective = MAKERS[name](case)
    batch = Batch(jnp.asarray(data["x"], jnp.float64), jnp.asarray(data["labels"]))

    @jax.jit
    def step(params):
        logits_fn = lambda x: forward(ops, params, x)  # noqa: E731
        views = objective.inner(logits_fn, jax.random.key(0), batch, threats.linf(data["eps"]))
        images = {"clean": batch.images, **views.images}
        logits = {n: logits_fn(images[v]) for n, v in objective.passes}
        box = {"lower": images["lower"], "upper": images["upper"]}
        method = objective.bound.method
        found = bounds.margins(logits_fn, batch.images, batch.labels, method=method, **box)
        losses, _ = objective.outer({**logits, "margins": found}, batch, {})
        return losses.mean(), (losses, images)

    (_, (found, images)), grads = jax.value_and_grad(step, has_aux=True)(params)
    if "x_adv" in case and "adv" in images:
        np.testing.assert_allclose(images["adv"], case["x_adv"], atol=1e-12)
    for side in ("lower", "upper"):
        wanted = case.get(f"box_{side}", data[f"ibp.box_{side}"])
        np.testing.assert_allclose(images[side], wanted, atol=1e-12)
    np.testing.assert_allclose(found, case["loss"], rtol=1e-8)
    prefix = f"{name}.grad."
    for key in [k for k in data if k.startswith(prefix)]:
        np.testing.assert_allclose(grads[key.removeprefix(prefix)], data[key], rtol=1e-8, atol=1e-8)


def test_steps_become_smaller_in_long_attacks():
    decays = lambda n: [_box_attack._decay(n, i) for i in range(n)]  # noqa: E731
    assert decays(12) == [1.0] * 10 + [0.2] * 2
    np.testing.assert_allclose(decays(20), [1.0] * 14 + [0.1] * 6)
    np.testing.assert_allclose(decays(50), [1] * 25 + [0.1] * 15 + [0.01] * 5 + [0.001] * 5)


@pytest.mark.parametrize("name", ["ibp", "mtl_ibp", "sabr", "crown_ibp"])
def test_the_train_step_bounds_the_network_that_is_evaluated(name):
    """With BatchNorm: the loss is that of margins on the running statistics after the passes."""
    import flax.linen as nn

    from jaxrobust.models._layers import BatchNorm

    class Net(nn.Module):
        axis_name: str | None = None

        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Conv(3, (3, 3))(images)
            x = nn.relu(BatchNorm(axis_name=self.axis_name)(x, train=train))
            return nn.Dense(4)(x.mean((1, 2)))

    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1), dtype=np.uint8)
    labels = np.arange(8) % 4
    x = jnp.asarray(images, jnp.float32) / 255
    net = Net()
    variables = net.init(jax.random.key(0), x)
    optimizer = optax.sgd(0.1)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        opt_state=optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(0)),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
    )
    step = make_train_step(StepSettings(optimizer), device_mesh(jax.devices()[:1]))
    objective = getattr(objectives, name)()
    before = jax.device_get(state.params)
    order = jnp.arange(8, dtype=jnp.int32)[None]
    after, metrics = step(state, images, labels, order, objective, threats.linf(0.05), network(net))
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - np.asarray(b)).max()), before, after.params)
    assert max(jax.tree.leaves(moved)) > 0
    if name in ("ibp", "crown_ibp"):
        trained = {"params": before, "batch_stats": after.batch_stats}
        logits_fn = lambda x: net.apply(trained, x)  # noqa: E731
        found = bounds.margins(
            logits_fn, x, labels, threat=threats.linf(0.05), method=objective.bound.method
        )
        np.testing.assert_allclose(metrics["loss"], losses.certified(found).mean(), rtol=1e-5)


def test_what_cannot_be_meant_is_refused():
    batch = Batch(jnp.zeros((2, 2, 2, 1)), jnp.array([0, 1]))
    logits_fn, key = (lambda x: x.reshape(2, -1)), jax.random.key(0)
    for objective in (objectives.ibp(), objectives.sabr(), objectives.cc_ibp()):
        with pytest.raises(InputError, match="threat must be linf"):
            objective.inner(logits_fn, key, batch, threats.l2(0.5))
        with pytest.raises(InputError, match="labels must be integer class indices"):
            objective.inner(logits_fn, key, batch._replace(labels=jnp.eye(2)), threats.linf(0.1))
    for make, name in (
        (lambda: objectives.mtl_ibp(alpha=1.5), "alpha"),
        (lambda: objectives.ibp(kappa=-0.1), "kappa"),
        (lambda: objectives.sabr(shrink=2.0), "shrink"),
        (lambda: objectives.sabr(restarts=0), "restarts"),
        (lambda: objectives.exp_ibp(attack_scale=-1.0), "attack_scale"),
    ):
        with pytest.raises(InputError, match=name):
            make()
