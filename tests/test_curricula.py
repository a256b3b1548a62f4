"""Curricula: CuSP's stages where the learning rate drops, and one trace for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import curricula, objectives, threats
from jaxrobust.devices import device_mesh, replicated
from jaxrobust.experiment import Experiment, from_dict, to_dict, use
from jaxrobust.networks import network
from jaxrobust.training import StepSettings, TrainState, make_train_step
from tests.training.test_updates import PlainNet


def experiment(**fields):
    base = {"objective": use("pgd_at"), "threat": use("linf", eps=0.1)}
    return Experiment(**{"name": "x", "data": use("digits"), "model": use("mlp"), **base, **fields})


def values(config, path, epochs, steps=10):
    schedule = config.schedule(path, steps)
    return [
        round(float(schedule(epoch * steps)) * (255 if "eps" in path else 1), 3) for epoch in epochs
    ]


def test_cusp_as_published():
    config = experiment(**curricula.cusp())
    assert from_dict(to_dict(config)) == config
    firsts_and_lasts = (0, 73, 74, 88, 89, 98, 99, 119)  # epochs from 0; the paper counts from 1
    assert values(config, "transform.max_degrees", firsts_and_lasts) == [
        120,
        120,
        150,
        150,
        180,
        180,
        180,
        180,
    ]
    assert values(config, "threat.eps", firsts_and_lasts) == [2, 2, 4, 4, 8, 8, 8, 8]
    rate = config.schedule("learning_rate", 10)
    rates = [float(rate(epoch * 10)) for epoch in firsts_and_lasts]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)
    assert config.objective.kwargs["step_size"] == pytest.approx(2 / 255)
    assert config.epochs == 120


def test_the_stages_scale_with_the_epochs():
    config = experiment(**curricula.cusp(epochs=12, degrees=(30, 40, 50), eps=(0.1, 0.15, 0.2)))
    assert values(config, "transform.max_degrees", (0, 7, 8, 9), steps=100) == [30, 30, 40, 50]


@pytest.mark.parametrize("kind", curricula.KINDS)
@pytest.mark.parametrize("objective", ["pgd_at", "trades"])
def test_the_baselines(kind, objective):
    config = experiment(**curricula.cusp(kind=kind, objective=objective))
    assert bool(config.schedules) == (kind == "cusp")
    assert (config.transform is None) == (kind == "linf_only")
    expected = "standard" if kind == "augmentation_only" else objective
    assert config.objective.target == expected
    assert config.build("threat").eps == pytest.approx(8 / 255)


def test_mistakes():
    with pytest.raises(ValueError, match="kind must be 'cusp', 'linf_only', .* or 'both_at"):
        curricula.cusp(kind="both")
    with pytest.raises(ValueError, match="must have three stages, got 2 and 3"):
        curricula.cusp(degrees=(1, 2))
    with pytest.raises(ValueError, match="threat__eps must have 2 values"):
        curricula.staged(epochs=(0, 1), threat__eps=(0.1,))
    with pytest.raises(ValueError, match=r"'threat\.radius' is no value that may change"):
        experiment(**curricula.constant(threat__radius=1.0))


def test_a_whole_curriculum_is_one_program_and_moves_the_images():
    seen, traces = [], []

    class Watching(PlainNet):
        def __call__(self, images, *, train=False):
            if train:
                traces.append(images.shape)
                jax.debug.callback(lambda x: seen.append(float(x)), images.mean())
            return super().__call__(images, train=train)

    model, optimizer = Watching(), optax.sgd(0.0)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), train=False)
    mesh = device_mesh(jax.devices()[:1])
    settings = StepSettings(
        optimizer,
        transform=threats.spatial(0.0, 0.0),
        schedules=(
            ("transform.max_shift_px", lambda step: jnp.where(step < 2, 0.0, 3.0)),
            ("threat.eps", lambda step: 0.0 * step.astype(jnp.float32)),
        ),
    )
    state = replicated(
        TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats={},
            opt_state=optimizer.init(variables["params"]),
            ema_params=None,
            key=jax.random.key_data(jax.random.key(1)),
        ),
        mesh,
    )
    step = make_train_step(settings, mesh)
    images = np.full((8, 4, 4, 1), 255, np.uint8)
    labels, order = np.zeros(8, np.int32), np.arange(8, dtype=np.int32)[None]
    for _ in range(4):
        parts = objectives.pgd_at(steps=1), threats.linf(0.1), network(model)
        state, _ = step(state, images, labels, order, *parts)
    jax.block_until_ready(state)
    jax.effects_barrier()
    assert len(set(traces)) == 1
    assert seen[:2] == pytest.approx([1, 1])
    assert max(seen[2:]) < 0.95, "shifted images have black borders"
