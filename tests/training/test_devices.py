"""One step under shard_map, pmap and on one device; where it communicates; restoring anywhere."""

import shutil
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import augment, objectives, threats
from jaxrobust.bench._program_cost import program_cost
from jaxrobust.devices import AXIS, device_mesh, image_rows, images_of, replicated
from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.models._layers import BatchNorm
from jaxrobust.networks import network
from jaxrobust.training import StepSettings, TrainState, make_train_step, read_rows, train
from jaxrobust.training._step import device_step

OBJECTIVES = {
    "trades": objectives.trades(beta=3.0, steps=3),
    "score": objectives.score(beta=3.0, steps=3, attack_statistics="running"),
    "score_batch": objectives.score(beta=3.0, steps=3),  # as published
}
THREAT = threats.linf(0.2)
SIZE, BATCH, STEPS = 32, 16, 3


class SmallNet(nn.Module):
    """With BatchNorm, and quick to compile."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(8, param_dtype=images.dtype, name="dense")(images.reshape(len(images), -1))
        x = nn.silu(BatchNorm(axis_name=self.axis_name, name="bn")(x, train=train))
        return nn.Dense(10, param_dtype=images.dtype, name="logits")(x)


NETWORK = network(SmallNet())


def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SIZE, 4, 4, 3), dtype=np.uint8)
    order = np.stack([rng.permutation(SIZE)[:BATCH] for _ in range(2)]).astype(np.int32)
    return images, rng.integers(0, 10, SIZE).astype(np.int32), order


def step_settings(**changes):
    optimizer = optax.sgd(0.2, momentum=0.9)
    return StepSettings(optimizer, augmentations=(augment.flip(),), **changes)


def initial_state(settings):
    zeros = jnp.zeros((1, 4, 4, 3), jnp.float32)
    variables = SmallNet().init(jax.random.key(0), zeros, train=False)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(float)), variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=settings.optimizer.init(variables["params"]),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(1)),
    )


def run(settings, objective, devices, *, runner="shard_map", steps=STEPS):
    """The state after a few steps, and the last metrics."""
    mesh = device_mesh(jax.devices()[:devices])
    step = make_train_step(settings, mesh, runner=runner)
    arguments = replicated(data(), mesh)
    state = replicated(initial_state(settings), mesh)
    for _ in range(steps):
        state, metrics = step(state, *arguments, objective, THREAT, NETWORK)
    return jax.device_get((state, metrics))


def one_device(settings, objective, shares):
    """The shares of a batch on one device: the axis is that of a `vmap`."""
    images, labels, order = data()
    state, last = initial_state(settings), None
    step = partial(device_step, settings, AXIS)
    shared = jax.jit(jax.vmap(step, in_axes=(*[None] * 3, 0, 0, *[None] * 3), axis_name=AXIS))
    positions = jnp.arange(BATCH, dtype=jnp.int32).reshape(shares, -1)
    for number in range(STEPS):
        indices = order[number % 2].reshape(shares, -1)
        states, last = shared(state, images, labels, indices, positions, objective, THREAT, NETWORK)
        state = jax.tree.map(lambda leaf: leaf[0], states)
    return jax.device_get((state, jax.tree.map(lambda leaf: leaf[0], last)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("trades", "global"),
        pytest.param("trades", "per_device", marks=pytest.mark.slow),
        pytest.param("score", "global", marks=pytest.mark.slow),
        ("score_batch", "per_device"),
    ],
)
def test_shard_map_pmap_and_one_device_agree(name, mode):
    """In float64, where no sign of a gradient flips: to rounding, whatever runs the step."""
    settings, objective = step_settings(global_batch_norm=mode == "global"), OBJECTIVES[name]
    eight, metrics = run(settings, objective, 8)
    mapped, mapped_metrics = run(settings, objective, 8, runner="pmap")
    alone, alone_metrics = one_device(settings, objective, 8)
    for state, found in ((mapped, mapped_metrics), (alone, alone_metrics)):
        chex.assert_trees_all_close(state, eight, rtol=0, atol=1e-12)
        chex.assert_trees_all_close(found, metrics, rtol=1e-10)
    if mode == "global":
        whole, _ = run(settings, objective, 1)
        chex.assert_trees_all_close(whole, eight, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_statistics_of_a_share_are_another_recipe():
    def kernel(name, devices, **settings):
        state, _ = run(step_settings(**settings), OBJECTIVES[name], devices)
        return state.params["dense"]["kernel"]

    local = kernel("trades", 8, global_batch_norm=False)
    assert np.abs(local - kernel("trades", 8)).max() > 1e-3
    # An attack on batch statistics sees its device's share even then: it must not communicate.
    assert np.abs(kernel("score_batch", 8) - kernel("score_batch", 1)).max() > 1e-4


@pytest.mark.parametrize(
    ("runner", "name"),
    [("shard_map", "trades"), ("pmap", "trades"), ("shard_map", "score_batch")],
)
def test_a_step_communicates_once_and_never_inside_the_attack(runner, name):
    mesh = device_mesh(None)

    def collectives(objective, **changes):
        settings = step_settings(**changes)
        step = make_train_step(settings, mesh, runner=runner)
        state = replicated(initial_state(settings), mesh)
        lowered = step.lower(state, *replicated(data(), mesh), objective, THREAT, NETWORK)
        return program_cost(lowered.compile().as_text())

    cost = collectives(OBJECTIVES[name], global_batch_norm=False)
    assert 3 in cost.loops, "the attack's loop is in the program"
    assert dict(cost.collectives) == {("all-reduce", False): 1}
    state = initial_state(step_settings())
    leaves = jax.tree.leaves((state.params, state.batch_stats))
    metrics = cost.collective_bytes // 4 - sum(leaf.size for leaf in leaves)
    assert 1 <= metrics < 10  # each gradient and statistic once, and a few scalars
    if runner == "pmap":
        return
    everywhere = collectives(OBJECTIVES[name], global_batch_norm=True)
    assert not any(inside for _, inside in everywhere.collectives)
    # One layer, two passes, forward and backward: mean and variance, and their gradients.
    assert 1 < sum(everywhere.collectives.values()) <= 1 + 8


def test_the_collectives_test_can_fail():
    """A network that shares its statistics inside of the attack is found out."""

    class Shared:
        def apply(self, *arguments, axis_name=None, **options):
            return NETWORK.apply(*arguments, axis_name=AXIS, **options)

        init = NETWORK.init

    mesh = device_mesh(None)
    settings = step_settings(global_batch_norm=False)
    objective = OBJECTIVES["score_batch"]
    step = make_train_step(settings, mesh)
    state = replicated(initial_state(settings), mesh)
    lowered = step.lower(state, *replicated(data(), mesh), objective, THREAT, network(Shared()))
    cost = program_cost(lowered.compile().as_text())
    assert any(inside for _, inside in cost.collectives)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (28, 28, 1), (5, 7, 2)])
def test_images_as_rows(shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    rows = image_rows(images)
    assert rows.shape[1] % 128 == 0
    assert rows.shape[1] - np.prod(shape) < 128
    np.testing.assert_array_equal(images_of(jnp.asarray(rows), shape), images)
    if np.prod(shape) % 128 == 0:
        assert np.shares_memory(rows, images)


def test_a_step_on_rows_is_that_on_images():
    direct, _ = run(step_settings(), OBJECTIVES["trades"], 1, steps=1)
    settings, mesh = step_settings(image_shape=(4, 4, 3)), device_mesh(jax.devices()[:1])
    pixels, labels, order = data()
    state = replicated(initial_state(settings), mesh)
    step = make_train_step(settings, mesh)
    state, _ = step(state, image_rows(pixels), labels, order, OBJECTIVES["trades"], THREAT, NETWORK)
    chex.assert_trees_all_equal(jax.device_get(state), direct)


def test_runners_and_batches_are_checked():
    settings, mesh = step_settings(), device_mesh(None)
    with pytest.raises(ValueError, match="runner must be one of shard_map, pmap, got 'jit'"):
        make_train_step(settings, mesh, runner="jit")
    images, labels, order = data()
    state = replicated(initial_state(settings), mesh)
    with pytest.raises(ValueError, match="batch must be a multiple of the 8 devices, got 12"):
        make_train_step(settings, mesh)(
            state, images, labels, order[:, :12], OBJECTIVES["trades"], THREAT, NETWORK
        )


def small():
    # L2 has no signs: trainings on different numbers of devices agree closely.
    return Experiment(
        name="small",
        data=use("digits"),
        model=use("digits_cnn", width=4, batch_norm=True),
        objective=use("trades", beta=3.0, steps=2),
        threat=use("l2", eps=0.5),
        learning_rate=use("constant", value=0.05),
        epochs=2,
        batch_size=256,
        ema_decay=0.5,
        validation=Validation(),
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(small(), tmp_path_factory.mktemp("runs") / "run", say=print)


def test_memory_is_in_the_rows(uninterrupted):
    row = read_rows(uninterrupted.workdir / "metrics.jsonl")[-1]
    assert row["devices"] == 8
    dataset = 1437 * 128
    assert dataset < row["bytes_per_device"] < 2**30


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that eight devices under pmap have left at step 4."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    train(small(), folder, runner="pmap", stop_at=4)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "runner", "close"),
    [(1, "shard_map", 5e-3), (2, "pmap", 5e-3), (4, "shard_map", 5e-3), (8, "shard_map", 1e-7)],
)
def test_a_checkpoint_of_eight_devices_under_pmap_continues_anywhere(
    devices, runner, close, stopped, uninterrupted, tmp_path
):
    shutil.copytree(stopped, tmp_path / "run")
    chosen, lines = jax.devices()[:devices], []
    resumed = train(
        small(), tmp_path / "run", resume=True, runner=runner, devices=chosen, say=lines.append
    )
    assert lines[0] == "resuming small at step 4"
    assert resumed.state.step.sharding.device_set == set(chosen)
    chex.assert_trees_all_close(
        jax.device_get(resumed.state), jax.device_get(uninterrupted.state), rtol=0, atol=close
    )
