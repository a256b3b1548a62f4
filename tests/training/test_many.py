"""Runs that share a program leave what they leave alone."""

import signal
import threading
import time
from dataclasses import replace

import chex
import jax
import pytest

from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import (
    Interrupted,
    NonFiniteLossError,
    Trained,
    alike,
    read_rows,
    train,
    train_many,
)

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
    one, other = together(tmp_path, [wrong, BASE], devices=jax.devices()[:1])
    assert isinstance(one, NonFiniteLossError)
    assert "the loss of wrong is" in str(one)
    assert int(other.state.step) == 10


def test_a_schedule_of_one_objective_is_none_of_another():
    lam = use("stages", values=[(0, float("inf")), (1, -1.0)])
    gairat = replace(BASE, objective=use("gairat", steps=2), schedules={"objective.lam": lam})
    assert not alike(BASE, gairat)
    assert not alike(gairat, BASE)
    assert alike(gairat, replace(gairat, name="other", seed=3))


def test_what_cannot_share_a_program_is_refused(tmp_path):
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
    assert not list(tmp_path.iterdir())
