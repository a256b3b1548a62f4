"""The loop: devices agree, resuming is exact, interruptions and damage lose nothing."""

import json
import os
import pathlib
import signal
import threading
import time
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest
from etils import epath

from jaxrobust.experiment import Evaluation, Experiment, Validation, use
from jaxrobust.training import (
    CheckpointError,
    Checkpoints,
    Interrupted,
    NonFiniteLossError,
    load_run,
    read_config,
    read_rows,
    train,
)
from jaxrobust.training._member import Member

ONE = jax.devices()[:1]


def small(**changes):
    experiment = Experiment(
        name="small",
        data=use("digits"),
        model=use("digits_cnn", width=4, batch_norm=True),
        objective=use("trades", beta=3.0, steps=2),
        threat=use("linf", eps=0.1),
        learning_rate=use("constant", value=0.05),
        epochs=2,
        batch_size=256,
        augment=(use("pad_crop", pad=1),),
        ema_decay=0.5,
        validation=Validation(size=64, steps=2),
        evaluation=Evaluation(steps=2, batch_size=64),
    )
    return replace(experiment, **changes)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    return train(small(), folder, devices=ONE)


def test_the_rate_is_of_the_steps_since_a_resumed_epoch_went_on(monkeypatch, tmp_path):
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    member = Member(small(), epath.Path(tmp_path), keep=1, on_metrics=None, say=print)
    monkeypatch.setattr(member.checkpoints, "sums", lambda step: {"loss": 7.0})
    member.open(2, 5, tensorboard=False)
    for step in (3, 4, 5):
        member.see(step, {"loss": 1.0})
    monkeypatch.setattr(time, "perf_counter", lambda: 106.0)
    assert member.figures() == {"loss": (7 + 3) / 5, "examples_per_second": 3 * 256 / 6}
    member.close(lost=False)


def host(state):
    return jax.device_get(state)


def test_a_run_leaves_everything_that_is_needed(uninterrupted):
    folder = uninterrupted.workdir
    assert read_config(folder) == small()
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 10]
    for name in ("loss", "accuracy", "robust_accuracy", "learning_rate", "examples_per_second"):
        assert np.isfinite(rows[-1][name])
    assert 0 <= rows[-1]["validation_robust_accuracy"] <= rows[-1]["validation_accuracy"] <= 1
    assert rows[-1]["loss"] < rows[0]["loss"]
    run = load_run(folder, checkpoint="last")
    assert run.step == 10
    # The evaluated parameters are the averaged ones.
    chex.assert_trees_all_equal(
        jax.device_get(run.logits_fn.params), host(uninterrupted.state).ema_params
    )


@pytest.mark.parametrize("stop", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 7))])
def test_resuming_at_any_step_is_bit_identical(uninterrupted, stop, tmp_path):
    lines = []
    train(small(), tmp_path / "run", devices=ONE, stop_at=stop)
    resumed = train(
        small(), tmp_path / "run", devices=ONE, resume=True, quiet=True, say=lines.append
    )
    assert lines == [f"resuming small at step {stop}"]
    chex.assert_trees_all_equal(host(resumed.state), host(uninterrupted.state))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [5, 10]


def distance(a, b):
    """The largest difference between two runs' parameters and running statistics."""
    pairs = ((host(r.state).params, host(r.state).batch_stats) for r in (a, b))
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), *pairs)))


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(uninterrupted, tmp_path):
    assert len(jax.devices()) == 8
    # A gradient at zero may take another sign in another summation order, hence not exact.
    attacked = train(small(), tmp_path / "trades", devices=jax.devices())
    assert distance(attacked, uninterrupted) < 2e-3
    plain = small(epochs=1, objective=use("standard"), validation=Validation())
    one = train(plain, tmp_path / "one", devices=ONE)
    eight = train(plain, tmp_path / "eight", devices=jax.devices())
    assert distance(eight, one) < 1e-5
    other = train(replace(plain, batch_norm="per_device"), tmp_path / "per", devices=jax.devices())
    assert distance(other, one) > 1e-3, "per-device statistics are another recipe"


def test_the_seed_decides_everything(tmp_path):
    a = train(small(epochs=1), tmp_path / "a", devices=ONE)
    b = train(small(epochs=1), tmp_path / "b", devices=ONE)
    c = train(small(epochs=1, seed=1), tmp_path / "c", devices=ONE)
    chex.assert_trees_all_equal(host(a.state), host(b.state))
    assert not np.allclose(
        host(a.state).params["conv1"]["kernel"], host(c.state).params["conv1"]["kernel"]
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_had_been(uninterrupted, number, tmp_path):
    folder, before = tmp_path / "run", signal.getsignal(number)

    def send():
        while signal.getsignal(number) == before:  # until then the signal would end the tests
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(
        Interrupted,
        match="saved step .*; continue with jaxrobust train EXPERIMENT --workdir .*run --resume",
    ) as stopped:
        train(small(), folder, devices=ONE)
    thread.join()
    assert stopped.value.signal_number == number
    assert signal.getsignal(number) == before
    resumed = train(small(), folder, devices=ONE, resume=True, say=lambda line: None)
    chex.assert_trees_all_equal(host(resumed.state), host(uninterrupted.state))


def damage(folder: pathlib.Path) -> None:
    """Cuts every data file of a checkpoint to half."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.stat().st_size > 200]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.slow
def test_restoring_falls_back_over_damage_with_one_line(uninterrupted, tmp_path):
    folder, lines = tmp_path / "run", []
    train(small(), folder, devices=ONE)
    damage(folder / "checkpoints" / "10")
    resumed = train(small(), folder, devices=ONE, resume=True, say=lines.append)
    assert "checkpoints/10 cannot be read" in lines[0]
    assert "\n" not in lines[0]
    assert lines[1] == "resuming small at step 5"
    chex.assert_trees_all_equal(host(resumed.state), host(uninterrupted.state))
    for step in Checkpoints(folder / "checkpoints").steps():
        damage(folder / "checkpoints" / str(step))
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        load_run(folder, say=lines.append)


def test_a_crash_while_writing_leaves_the_earlier_checkpoint(tmp_path):
    store = Checkpoints(tmp_path)
    state = {"w": jax.numpy.arange(4.0)}
    store.save(1, state)
    store.close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()  # what a kill -9 leaves
    again = Checkpoints(tmp_path)
    assert again.steps() == [1]
    step, restored = again.restore_last(state)
    assert step == 1
    chex.assert_trees_all_equal(restored, state)
    again.save(2, {"w": state["w"] + 1})
    again.wait()
    assert again.steps() == [1, 2]
    again.close()


def test_the_best_and_the_last_few_are_kept(tmp_path):
    store = Checkpoints(tmp_path, keep=2)
    for step, score in ((1, 0.2), (2, 0.9), (3, 0.4), (4, 0.5), (5, 0.6)):
        store.save(step, {"w": jax.numpy.float32(step)}, validation=score)
        store.wait()
    assert store.steps() == [2, 4, 5]
    assert store.best_step() == 2
    assert store.restore_best({"w": jax.numpy.float32(0)})[0] == 2
    store.save(6, {"w": jax.numpy.float32(6)})
    store.wait()
    assert store.steps() == [2, 5, 6]
    store.close()
    plain = Checkpoints(tmp_path / "plain")
    plain.save(3, {"w": jax.numpy.float32(3)})
    plain.wait()
    assert plain.best_step() == 3
    plain.close()


def test_a_non_finite_loss_names_step_batch_and_checkpoint(tmp_path):
    broken = small(learning_rate=use("piecewise", value=0.05, drops=[(1.4, 1e30)]))
    with pytest.raises(
        NonFiniteLossError,
        match=r"loss of small is (nan|inf) at step \d+ \(batch [2-4] of epoch 2\)",
    ) as error:
        train(broken, tmp_path / "run", devices=ONE)
    assert "checkpoint of step 5" in str(error.value)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [5]


def test_a_folder_belongs_to_one_run(uninterrupted):
    folder = uninterrupted.workdir
    with pytest.raises(
        ValueError, match="already holds the run 'small'; continue it with --resume"
    ):
        train(small(), folder)
    with pytest.raises(
        ValueError, match=r"other settings \(old -> new\): batch_size 256 -> 128, seed 0 -> 3;"
    ):
        train(small(seed=3, batch_size=128), folder, resume=True)
    finished = train(small(), folder, devices=ONE, resume=True, say=lambda line: None)
    chex.assert_trees_all_equal(host(finished.state), host(uninterrupted.state))


def test_clear_errors_before_anything_is_computed(tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a multiple of the 8 devices times"):
        train(small(batch_size=100), tmp_path / "a")
    with pytest.raises(ValueError, match="batch_size must be at most the 1373 training examples"):
        train(small(batch_size=4096), tmp_path / "b", devices=ONE)
    with pytest.raises(ValueError, match=r"small_cnn cannot take images of shape \(8, 8, 1\)"):
        train(small(model=use("small_cnn")), tmp_path / "c", devices=ONE)
    with pytest.raises(ValueError, match="holds no run"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="checkpoint must be 'best' or 'last', got 'newest'"):
        load_run(tmp_path, checkpoint="newest")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text('{"name": "x"')
    with pytest.raises(ValueError, match="config.json is damaged"):
        read_config(tmp_path / "d")


def test_a_metrics_file_cut_off_by_a_crash_can_be_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')
    assert read_rows(path) == [{"step": 1}]


def test_tensorboard_events_are_written_on_request(tmp_path):
    from jaxrobust.training._reporting import MetricsFile

    file = MetricsFile(tmp_path / "metrics.jsonl", tensorboard=True)
    file.write(3, {"loss": 0.5, "note": "text"})
    file.close()
    assert read_rows(tmp_path / "metrics.jsonl") == [{"step": 3, "loss": 0.5, "note": "text"}]
    events = list((tmp_path / "tensorboard").glob("events*"))
    assert len(events) == 1
    assert events[0].stat().st_size > 50
