"""The same network in three libraries is trained by the same numbers."""

from functools import partial

import chex
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrobust import objectives, threats
from jaxrobust.devices import device_mesh, replicated
from jaxrobust.experiment import Experiment, use
from jaxrobust.networks import network
from jaxrobust.training import (
    Checkpoints,
    StepSettings,
    TrainState,
    build_optimizer,
    create_state,
    make_train_step,
)
from jaxrobust.training._updates import Averaging
from tests.networks import same

BATCH = 16
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (BATCH, 6, 6, 1), dtype=np.uint8)
LABELS = RNG.integers(0, same.CLASSES, BATCH).astype(np.int32)
ORDER = np.arange(BATCH, dtype=np.int32)[None]
THREAT = threats.linf(0.1)


def weights(library):
    """The same for all, in float64."""
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    wide = lambda x: x.astype(jnp.float64) if floating(x) else x  # noqa: E731
    return jax.tree.map(wide, same.weights(library))


def steps(net, weights, objective, *, devices=1, count=5, runner="shard_map", **settings):
    """The state after some steps, and the metrics of each."""
    mesh = device_mesh(jax.devices()[:devices])
    optimizer = optax.sgd(0.2, momentum=0.9)
    zero, key = jnp.zeros((), jnp.int32), jax.random.key_data(jax.random.key(1))
    params, statistics = weights
    state = TrainState(zero, params, statistics, optimizer.init(params), None, key)
    step = make_train_step(StepSettings(optimizer, **settings), mesh, runner=runner)
    state, rows = replicated(state, mesh), []
    with jax.numpy_dtype_promotion("standard"):  # the libraries' layers are not strict
        for _ in range(count):
            state, metrics = step(state, PIXELS, LABELS, ORDER, objective, THREAT, net)
            rows.append(metrics)
    return jax.device_get((state, rows))


slow = partial(pytest.param, marks=pytest.mark.slow)
BATCH_STATISTICS = [
    objectives.trades(beta=3.0, steps=2, attack_statistics="batch"),
    objectives.pgd_at(steps=2, attack_statistics="batch"),
]
CASES = [
    (BATCH_STATISTICS[0], {"devices": 1}),
    slow(BATCH_STATISTICS[0], {"devices": 4}),
    slow(BATCH_STATISTICS[1], {"devices": 1}),
    (BATCH_STATISTICS[1], {"devices": 4}),
    (objectives.trades(beta=3.0, steps=2), {"devices": 4, "runner": "pmap"}),
    (objectives.pgd_at(steps=2, attack_statistics="update"), {"devices": 4, "runner": "shard_map"}),
    slow(objectives.pgd_at(steps=2), {"devices": 4, "global_batch_norm": False}),
    slow(BATCH_STATISTICS[1], {"microbatches": 2, "awp": optax.constant_schedule(0.01)}),
]


@pytest.mark.usefixtures("float64")  # where no sign of a gradient flips
@pytest.mark.parametrize(("objective", "settings"), CASES)
def test_five_steps_are_those_of_linen(objective, settings):
    """Losses, gradients (in the momentum) and statistics, to rounding."""
    state, rows = steps(same.NETWORKS["linen"], weights("linen"), objective, **settings)
    # Equinox evaluates with debiased averages, so that attacks on running statistics differ.
    others = ("nnx", "equinox") if settings.keys() == {"devices"} else ("nnx",)
    for library in others:
        found, own = steps(same.NETWORKS[library], weights(library), objective, **settings)
        for row, expected in zip(own, rows, strict=True):
            chex.assert_trees_all_close(row, expected, rtol=1e-9)
        for tree, expected in (
            (found.params, state.params),
            (found.opt_state[0].trace, state.opt_state[0].trace),
        ):
            expected = same.from_linen(library, expected, state.batch_stats)[0]
            for layer in ("conv", "bn", "dense"):
                chex.assert_trees_all_close(tree[layer], expected[layer], atol=1e-10)
        leaves = [x for x in jax.tree.leaves(found.batch_stats) if x.dtype == np.float64]
        chex.assert_trees_all_close(leaves, jax.tree.leaves(state.batch_stats), atol=1e-10)
        if library == "equinox":  # a counter, which no average over devices touches
            (count,) = (x for x in jax.tree.leaves(found.batch_stats) if x.ndim == 0)
            assert count == 5 * len(objective.passes)


def distance(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


def haiku_net(images, *, train, axis_name):
    x = hk.Conv2D(4, 3)(images)
    x = hk.BatchNorm(True, True, 0.9, cross_replica_axis=axis_name)(x, is_training=train)
    x = jax.nn.relu(x).mean((1, 2))
    x = hk.dropout(hk.next_rng_key(), 0.5, x) if train else x
    return hk.Linear(same.CLASSES)(x)


@pytest.mark.parametrize("library", ["linen", "nnx", "equinox", "haiku"])
def test_a_restored_state_continues_bit_for_bit(library, tmp_path, compilations):
    """With dropout and averages; and no program is compiled again."""
    net = {**same.DROPOUT, "haiku": network(haiku_net)}[library]
    config = Experiment(
        name="x",
        data=use("digits"),
        model=use("mlp"),
        objective=use("standard"),
        threat=use("linf", eps=0.1),
        ema_decay=0.9,
        ema_batch_stats="average",
        optimizer=use("sgd", momentum=0.9),
    )
    mesh, objective = device_mesh(jax.devices()[:2]), objectives.trades(beta=3.0, steps=1)
    optimizer, _ = build_optimizer(config, 1)
    settings = StepSettings(optimizer, averaging=Averaging(0.9, None, "average"))
    step = make_train_step(settings, mesh)

    def run(state, count):
        for _ in range(count):
            state, _ = step(state, PIXELS, LABELS, ORDER, objective, THREAT, net)
        return state

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        first = create_state(config, net, optimizer, (6, 6, 1))
        start = jax.device_get(first)
        half = run(replicated(first, mesh), 2)
        store = Checkpoints(tmp_path)
        store.save(2, half)
        store.wait()
        _, restored = store.restore_last(half)
        whole = jax.device_get(run(half, 2))
        before = compilations.count("jit(train_step)")
        again = jax.device_get(run(restored, 2))
        assert compilations.count("jit(train_step)") == before == 1
        store.close()
        chex.assert_trees_all_equal(again, whole)
        assert distance(whole.ema_params, start.ema_params) > 1e-4
        # Another key of the run, other masks.
        other = run(replicated(start._replace(key=start.key + np.uint32(1)), mesh), 4)
    assert distance(jax.device_get(other.params), whole.params) > 1e-4
