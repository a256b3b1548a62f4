"""Runs that share a program leave what they leave alone, and go on together or alone."""

import shutil
import signal
import threading
import time
from dataclasses import replace

import chex
import jax
import pytest

from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import (
    CheckpointError,
    Checkpoints,
    Interrupted,
    NonFiniteLossError,
    Trained,
    alike,
    read_rows,
    train,
    train_many,
)

ONE = jax.devices()[:1]
# MART's attack has a direction from its start, and l2 no signs: sums in another order agree.
BASE = Experiment(
    name="base",
    data=use("digits"),
    model=use("digits_cnn", width=4, batch_norm=True),
    objective=use("mart", beta=1.0, steps=2),
    threat=use("l2", eps=0.3),
    learning_rate=use("constant", value=0.05),
    epochs=2,
    batch_size=256,
    validation=Validation(size=64, steps=2, every=2),
)
MEMBERS = [
    replace(
        BASE,
        name=f"{beta} {seed}",
        seed=seed,
        objective=use("mart", beta=beta, steps=2),
        threat=use("l2", eps=eps),
    )
    for beta, eps in ((1.0, 0.3), (6.0, 0.5))
    for seed in (0, 1)
]


def together(folder, members=MEMBERS, **options):
    folders = [folder / str(n) for n in range(len(members))]
    return train_many(members, folders, quiet=True, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    devices = jax.devices()[:1]
    return [train(m, folder / m.name, devices=devices, quiet=True) for m in MEMBERS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("devices", "at_once"), [(1, None), (1, 3), (8, 4)], ids=["loop", "chunks", "devices"]
)
def test_each_is_as_alone(alone, devices, at_once, tmp_path):
    """On eight devices: two members on each of four pairs that split the batch."""
    members = MEMBERS if devices == 1 else [MEMBERS[0], *MEMBERS, MEMBERS[3]]
    expected = alone if devices == 1 else [alone[0], *alone, alone[3]]
    found = together(tmp_path, members, at_once=at_once, devices=jax.devices()[:devices])
    for one, run in zip(expected, found, strict=True):
        assert isinstance(run, Trained)
        chex.assert_trees_all_close(run.state, jax.device_get(one.state), rtol=0, atol=2e-4)
        rows, others = (read_rows(r.workdir / "metrics.jsonl") for r in (run, one))
        assert [row["step"] for row in rows] == [row["step"] for row in others] == [5, 10]
        for row, other in zip(rows, others, strict=True):
            assert {"loss", "accuracy", "robust_accuracy", "learning_rate"} < set(row)
            assert row["members"] == len(members)
            own = {"examples_per_second", "devices", "bytes_per_device", "members"}
            for name in set(row) - own:
                assert row[name] == pytest.approx(other[name], abs=0.02), name
        assert "validation_robust_accuracy" in rows[-1]


@pytest.mark.slow
def test_what_a_run_left_can_be_continued(tmp_path):
    """A signal saves every member; alone it goes on as if it had never been one of several."""
    before = signal.getsignal(signal.SIGTERM)

    def send():
        while signal.getsignal(signal.SIGTERM) == before:
            time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    members = [replace(m, epochs=20) for m in MEMBERS[:2]]
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(Interrupted, match="2 runs stopped by signal 15; saved step"):
        together(tmp_path, members, devices=jax.devices()[:1])
    thread.join()
    one = train(members[1], tmp_path / "1", resume=True, quiet=True, stop_at=10, say=lambda _: None)
    assert int(one.state.step) == 10


def test_a_member_that_fails_costs_the_others_nothing(tmp_path):
    wrong = replace(BASE, name="wrong", objective=use("mart", beta=1e38, steps=2))
    one, other = together(tmp_path, [wrong, BASE], devices=ONE)
    assert isinstance(one, NonFiniteLossError)
    assert "the loss of wrong is" in str(one)
    assert int(other.state.step) == 10
    # Only those that can go on do; where nobody can, that is the end.
    again = together(tmp_path / "both", [wrong, replace(wrong, seed=1)], devices=ONE)
    assert all(isinstance(run, NonFiniteLossError) for run in again)
    assert not Checkpoints(tmp_path / "both" / "0" / "checkpoints").steps()


SMALL = replace(
    BASE,
    name="small",
    data=use("synthetic", size=6, train=40, test=8),
    model=use("mlp", hidden=(8,)),
    batch_size=16,
    epochs=5,
    ema_decay=0.5,
    validation=Validation(size=8, steps=1),
)
TRIO = [replace(SMALL, seed=n % 2, threat=use("l2", eps=0.1 * (n + 1))) for n in range(3)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A group that was never stopped: ten steps, two an epoch."""
    return together(tmp_path_factory.mktemp("whole"), TRIO, devices=ONE)


@pytest.fixture
def stopped(tmp_path):
    """The same, stopped within its fourth epoch: the last three checkpoints, and the best."""
    together(tmp_path, TRIO, devices=ONE, stop_at=7, keep=3)
    return tmp_path, [tmp_path / str(n) / "checkpoints" for n in range(3)]


def resumed(folder, members=TRIO, **options):
    lines = []
    options = {"devices": ONE, "keep": 3, "resume": True, "say": lines.append, **options}
    return together(folder, members, **options), lines


def test_a_stopped_group_goes_on_bit_for_bit(whole, stopped):
    """From the latest step of all, also if a crash found some saved and one has damage."""
    folder, checkpoints = stopped
    assert all(set(Checkpoints(f).steps()) >= {4, 6, 7} for f in checkpoints)
    shutil.rmtree(checkpoints[0] / "7")
    for file in (checkpoints[2] / "6").rglob("*"):
        if file.is_file() and file.stat().st_size > 200:
            file.write_bytes(file.read_bytes()[:100])
    found, lines = resumed(folder)
    assert len(lines) == 2
    assert "2/checkpoints/6 cannot be read" in lines[0]
    assert lines[1] == "resuming 3 x small at step 4"
    for run, other in zip(found, whole, strict=True):
        chex.assert_trees_all_equal(run.state, other.state)
        rows = read_rows(run.workdir / "metrics.jsonl")
        losses = [(row["step"], row["loss"]) for row in rows]
        expected = read_rows(other.workdir / "metrics.jsonl")
        assert losses == [(row["step"], row["loss"]) for row in expected]
        assert [step for step, _ in losses] == [2, 4, 6, 8, 10]
    names = {path.name for path in checkpoints[2].iterdir()}
    assert {"damaged-6", "later-7"} <= names
    assert (checkpoints[1] / "later-6").is_dir()


def test_a_member_of_a_stopped_group_goes_on_alone_and_a_group_may_grow(whole, stopped, tmp_path):
    folder, checkpoints = stopped
    shutil.copytree(folder / "1", tmp_path / "alone")
    options = {"devices": ONE, "quiet": True, "say": lambda line: None, "resume": True}
    alone = train(TRIO[1], tmp_path / "alone", **options)
    chex.assert_trees_all_close(jax.device_get(alone.state), whole[1].state, rtol=1e-5, atol=1e-6)
    longer, lines = resumed(folder, [replace(member, epochs=6) for member in TRIO])
    assert [line for line in lines if "grows from 5 to 6 epochs" in line] == lines[:3]
    assert [int(run.state.step) for run in longer] == [12, 12, 12]
    for path in Checkpoints(checkpoints[0]).steps():
        shutil.rmtree(checkpoints[0] / str(path))
    before = sorted(path for f in checkpoints for path in f.iterdir())
    with pytest.raises(CheckpointError, match=r"3 x small have no checkpoint .*/0: none; "):
        resumed(folder, [replace(member, epochs=6) for member in TRIO])
    assert sorted(path for f in checkpoints for path in f.iterdir()) == before
    with pytest.raises(ValueError, match="already holds the run 'small'"):
        resumed(folder, resume=False)
    with pytest.raises(ValueError, match="keep must be an integer of at least 2, got 1"):
        resumed(folder, keep=1)


def test_a_schedule_of_one_objective_is_none_of_another():
    lam = use("stages", values=[(0, float("inf")), (1, -1.0)])
    gairat = replace(BASE, objective=use("gairat", steps=2), schedules={"objective.lam": lam})
    assert not alike(BASE, gairat)
    assert not alike(gairat, BASE)
    assert alike(gairat, replace(gairat, name="other", seed=3))


@pytest.mark.parametrize(("one", "two"), [("ibp", "crown_ibp"), ("mtl_ibp", "exp_ibp")])
def test_classes_with_the_same_fields_are_not_alike(one, two):
    first, other = (replace(BASE, objective=use(name)) for name in (one, two))
    assert alike(first, replace(first, seed=3))
    assert not alike(first, other)


def test_what_cannot_share_a_program_is_refused(tmp_path, monkeypatch):
    others = {
        "epochs": replace(BASE, epochs=3),
        "steps": replace(BASE, objective=use("mart", steps=3)),
        "objective": replace(BASE, objective=use("trades", steps=2)),
        "threat": replace(BASE, threat=use("linf", eps=0.1)),
        "split": replace(BASE, validation=Validation(size=65, steps=2, every=2)),
    }
    for name, other in others.items():
        assert not alike(BASE, other), name
        with pytest.raises(ValueError, match=f"{other.name!r} differs from 'base' in more"):
            together(tmp_path / name, [BASE, other])
    with pytest.raises(ValueError, match="a folder for each"):
        train_many([BASE, BASE], [tmp_path / "a"])
    with pytest.raises(ValueError, match="different folders"):
        train_many([BASE, BASE], [tmp_path / "a", tmp_path / "a"])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="trained together by one process"):
        train_many([BASE, BASE], [tmp_path / "a", tmp_path / "b"])
    assert not list(tmp_path.iterdir())
