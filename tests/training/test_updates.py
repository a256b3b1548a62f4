"""Parameter average, weight perturbation, decay masks, microbatches, weights over devices."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import objectives, threats
from jaxrobust.data import digits
from jaxrobust.devices import device_mesh, replicated
from jaxrobust.experiment import Experiment, from_dict, override, to_dict, use
from jaxrobust.networks import network
from jaxrobust.training import (
    StepSettings,
    TrainState,
    build_optimizer,
    create_state,
    make_train_step,
)
from jaxrobust.training._prepare import check_model
from jaxrobust.training._step import _normalised
from jaxrobust.training._updates import (
    Averaging,
    kernels,
    no_norm,
    updated,
    weight_perturbation,
)
from tests.tiny import TinyNet


@pytest.mark.usefixtures("float64")
def test_the_parameter_average_is_the_authors(golden):
    data = golden("at_public_core")
    params, averages = data["ema.param_traj"], data["ema.wa_traj"]
    averaging = Averaging(float(data["ema.tau"]), float(data["ema.warmup_steps"]))
    average = jnp.asarray(params[0])
    for count, stored in enumerate(averages, 1):
        decay = averaging.decay_at(jnp.asarray(count))
        average = decay * average + (1 - decay) * params[count]
        np.testing.assert_allclose(average, stored, rtol=1e-12)


def test_constant_averaging_has_no_warm_up():
    assert float(Averaging(0.9).decay_at(jnp.asarray(1))) == pytest.approx(0.9)


@pytest.mark.parametrize("scale", [1, 1e-3])
def test_weight_perturbation_goes_uphill_by_a_part_of_each_kernel(scale):
    params = {
        "a": {"kernel": jnp.full((3, 4), 2.0), "bias": jnp.ones(4)},
        "b": {"kernel": jnp.zeros((2, 2))},
    }
    grads = jax.tree.map(
        lambda leaf: scale * jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape), params
    )
    moved = weight_perturbation(params, grads, size=jnp.asarray(0.01))
    step = moved["a"]["kernel"] - params["a"]["kernel"]
    norm = jnp.linalg.norm(params["a"]["kernel"])
    assert float(jnp.linalg.norm(step)) == pytest.approx(0.01 * float(norm), rel=1e-5)
    cosine = (
        (step * grads["a"]["kernel"]).sum()
        / jnp.linalg.norm(step)
        / jnp.linalg.norm(grads["a"]["kernel"])
    )
    assert float(cosine) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(moved["a"]["bias"], 1)
    np.testing.assert_array_equal(moved["b"]["kernel"], 0)
    flat = jax.tree.map(jnp.zeros_like, params)
    chex.assert_trees_all_equal(weight_perturbation(params, flat, size=jnp.asarray(0.01)), params)


def test_decay_masks():
    params = {
        "conv": {"kernel": jnp.ones((3, 3, 1, 2))},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
        "dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    }
    assert kernels(params) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "dense": {"kernel": True, "bias": False},
    }
    assert no_norm(params) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "dense": {"kernel": True, "bias": True},
    }


def experiment(**changes):
    return Experiment(
        **{
            "name": "x",
            "data": use("digits"),
            "model": use("mlp"),
            "objective": use("gairat"),
            "threat": use("linf", eps=0.1),
            **changes,
        }
    )


def test_weight_decay_reaches_the_parameters_it_should():
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decayed, bias in (("all", 1 - 1e-3), ("kernels", 1.0)):
        config = experiment(
            optimizer=use("sgd"),
            learning_rate=use("constant", value=0.1),
            weight_decay=0.01,
            decayed=decayed,
        )
        optimizer, _ = build_optimizer(config, 10)
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        after = optax.apply_updates(params, updates)
        np.testing.assert_allclose(after["dense"]["kernel"], 1 - 1e-3, rtol=1e-6)
        np.testing.assert_allclose(after["dense"]["bias"], bias, rtol=1e-6)


def test_momentum_follows_its_schedule():
    config = experiment(
        optimizer=use("sgd", momentum=0.9, nesterov=True),
        learning_rate=use("constant", value=1.0),
        schedules={"optimizer.momentum": use("stages", values=[[0, 0.5], [2, 0.0]])},
        epochs=4,
    )
    optimizer, _ = build_optimizer(config, 1)
    params = jnp.zeros(())
    state, velocity = optimizer.init(params), 0.0
    for momentum in (0.5, 0.5, 0.0, 0.0):
        update, state = optimizer.update(jnp.ones(()), state, params)
        velocity = 1 + momentum * velocity
        assert float(update) == pytest.approx(-(1 + momentum * velocity), rel=1e-6)


def test_schedules_round_trip_and_are_checked():
    lam = use("stages", values=[[0, float("inf")], [60, -1.0]])
    config = experiment(schedules={"objective.lam": lam, "awp": use("constant", value=0.01)})
    assert from_dict(to_dict(config)) == config
    assert float(config.schedule("objective.lam", 5)(299)) == np.inf
    assert float(config.schedule("objective.lam", 5)(300)) == -1
    with pytest.raises(
        ValueError, match="'objective.beta' is no value that may change; choose from awp"
    ):
        experiment(schedules={"objective.beta": lam})
    with pytest.raises(ValueError, match="schedules\\['awp'\\]: 'steps' is unknown; choose from"):
        experiment(schedules={"awp": use("steps")})
    changed = override(
        config, ['schedules.threat.eps={"name": "linear", "kwargs": {"start": 0, "end": 0.1}}']
    )
    assert set(changed.schedules) == {"objective.lam", "awp", "threat.eps"}


class PlainNet(nn.Module):
    """Without BatchNorm: examples do not see each other."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        hidden = jnp.tanh(nn.Dense(16, name="hidden")(images.reshape(len(images), -1)))
        return nn.Dense(10, name="logits")(hidden)


def run(objective, *, model=None, devices=1, steps=2, threat=None, **settings):
    """A few steps on random images."""
    model = PlainNet() if model is None else model
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (16, 4, 4, 1), dtype=np.uint8)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), train=False)
    labels = np.asarray(model.apply(variables, images / np.float32(255)).argmax(1), np.int32)
    optimizer = optax.sgd(0.1)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(1)),
    )
    mesh = device_mesh(jax.devices()[:devices])
    state = replicated(state, mesh)
    step = make_train_step(StepSettings(optimizer, num_classes=10, **settings), mesh)
    order = np.arange(16, dtype=np.int32)[None]
    for _ in range(steps):
        parts = objective, threat or threats.linf(0.3), network(model)
        state, metrics = step(state, images, labels, order, *parts)
    return jax.device_get(state), jax.device_get(metrics)


def test_gairat_weighs_over_the_batch_of_all_devices_and_parts():
    objective = objectives.gairat(lam=-1.0, steps=4)
    one, metrics = run(objective)
    assert 0.5 < metrics["kappa"] < 3.5  # examples differ, so the weights do
    for many in (
        run(objective, devices=8),
        run(objective, microbatches=4),
        run(objective, devices=2, microbatches=2),
    ):
        chex.assert_trees_all_close(many[0].params, one.params, atol=1e-6)
        chex.assert_trees_all_close(many[1], metrics, rtol=1e-5)


def test_microbatches_with_batch_norm_thread_its_statistics():
    objective = objectives.trades(steps=1, beta=1.0)
    whole, _ = run(objective, model=TinyNet(), steps=1, threat=threats.linf(0.0))
    parts, _ = run(objective, model=TinyNet(), steps=1, threat=threats.linf(0.0), microbatches=4)
    before = 0.9**2
    mean = (whole.batch_stats["bn"]["mean"] / (1 - before)) * (1 - before**4)
    # Each part's mean has its own place in the moving average: near the whole's, not equal.
    np.testing.assert_allclose(parts.batch_stats["bn"]["mean"], mean, rtol=0.5, atol=0.05)
    assert not np.allclose(parts.batch_stats["bn"]["mean"], whole.batch_stats["bn"]["mean"])
    with pytest.raises(ValueError, match='microbatches must be 1 for attack_statistics "update"'):
        run(objectives.distance_pgd_at(steps=1), model=TinyNet(), microbatches=2)


def test_awp_takes_the_gradient_at_the_moved_weights():
    plain, _ = run(objectives.standard(), steps=1)
    moved, _ = run(objectives.standard(), steps=1, awp=optax.constant_schedule(0.05))
    none, _ = run(objectives.standard(), steps=1, awp=optax.constant_schedule(0.0))
    chex.assert_trees_all_close(none.params, plain.params, atol=1e-7)
    assert (
        max(
            np.abs(a - b).max()
            for a, b in zip(
                jax.tree.leaves(plain.params), jax.tree.leaves(moved.params), strict=True
            )
        )
        > 1e-4
    )


@pytest.mark.slow
def test_scheduled_values_reach_objective_and_threat_without_recompiling():
    seen = []

    def lam(step):
        seen.append(step)
        return jnp.where(step < 1, jnp.inf, -1.0)

    schedules = (
        ("objective.lam", lam),
        ("threat.eps", lambda step: 0.3 + 0 * step.astype(jnp.float32)),
    )
    scheduled, _ = run(
        objectives.gairat(lam=5.0, steps=4), threat=threats.linf(0.0), schedules=schedules
    )
    assert len(seen) == 1
    burn_in, _ = run(objectives.gairat(lam=jnp.inf, steps=4), steps=1)
    first, _ = run(
        objectives.gairat(lam=5.0, steps=4), threat=threats.linf(0.0), schedules=schedules, steps=1
    )
    chex.assert_trees_all_close(first.params, burn_in.params, atol=1e-6)
    later, _ = run(objectives.gairat(lam=jnp.inf, steps=4))
    assert not np.allclose(
        scheduled.params["logits"]["bias"], later.params["logits"]["bias"], atol=1e-5
    )


def test_batch_augmentation_makes_soft_labels():
    def all_to_first(key, images, labels):
        return images, jnp.zeros_like(labels).at[:, 0].set(1.0)

    soft, metrics = run(
        objectives.score(beta=0.0, steps=1, attack_target="label"),
        batch_augmentations=(all_to_first,),
        steps=3,
    )
    hard, _ = run(objectives.score(beta=0.0, steps=1, attack_target="label"), steps=3)
    assert soft.params["logits"]["bias"][0] > hard.params["logits"]["bias"][0]
    assert np.isfinite(metrics["loss"])


def test_weights_of_any_size_have_a_mean_of_one_over_all_devices():
    """GAIRAT's are exponents: their range may be wider than that of exp."""
    log_weights = jnp.array([[0.0, 0.0], [-300.0, 300.0]])
    weights = jax.vmap(lambda part: _normalised(part, "devices"), axis_name="devices")(log_weights)
    np.testing.assert_allclose(weights, [[0, 0], [0, 4]], atol=1e-6)


def test_a_step_moves_the_averages_by_their_share():
    leaf = lambda value: {"w": jnp.full(3, value)}  # noqa: E731
    optimizer = optax.sgd(1.0)
    state = TrainState(
        step=jnp.asarray(4),
        params=leaf(2.0),
        batch_stats=leaf(5.0),
        opt_state=optimizer.init(leaf(2.0)),
        ema_params=leaf(10.0),
        key=jax.random.key_data(jax.random.key(0)),
        ema_batch_stats=leaf(1.0),
    )
    after = updated(optimizer, Averaging(0.75), state, leaf(-4.0), leaf(9.0))
    chex.assert_trees_all_equal(after.params, leaf(6.0))
    chex.assert_trees_all_equal(after.batch_stats, leaf(9.0))
    chex.assert_trees_all_close(after.ema_params, leaf(0.75 * 10 + 0.25 * 6))
    chex.assert_trees_all_close(after.ema_batch_stats, leaf(0.75 * 1 + 0.25 * 9))
    for copied_steps, average in ((5, 6.0), (4, 9.0)):  # this step is the fifth
        averaging = Averaging(0.75, copied_steps=copied_steps)
        after = updated(optimizer, averaging, state, leaf(-4.0), leaf(9.0))
        chex.assert_trees_all_close(after.ema_params, leaf(average))


@pytest.mark.parametrize(
    ("batch_norm", "devices"), [("global", 1), ("global", 2), ("per_device", 2)]
)
def test_a_network_is_checked_with_the_devices_of_its_batch_norm(monkeypatch, batch_norm, devices):
    seen = []
    monkeypatch.setattr(
        "jaxrobust.training._prepare.check_network",
        lambda *_, axis_size: seen.append(axis_size) or (),
    )
    config = experiment(batch_norm=batch_norm)
    mesh = device_mesh(jax.devices()[:devices])
    check_model(config, None, digits(), mesh, say=print)
    assert seen == [2 if (batch_norm, devices) == ("global", 2) else None]


@pytest.mark.parametrize("features", [0, 1])
def test_a_layer_may_see_one_number_but_not_none(features):
    class Narrow(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            seen = images.reshape(len(images), -1)[:, :features]
            return nn.Dense(1, kernel_init=nn.initializers.zeros)(seen)

    make = lambda: create_state(experiment(), network(Narrow()), optax.sgd(0.1), (2, 2, 1))  # noqa: E731
    if features:
        assert make().params["Dense_0"]["kernel"].shape == (1, 1)
    else:
        with pytest.raises(ValueError, match="too small: a layer is left with nothing to see"):
            make()
