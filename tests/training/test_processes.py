"""Two real processes over loopback: the numbers of one, signals, and what happens when one dies."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxrobust import evaluators
from jaxrobust.commands import autoattack_run, evaluate_run
from jaxrobust.data import digits as load_digits
from jaxrobust.devices import device_mesh
from jaxrobust.experiment import Experiment, Validation, to_dict, use
from jaxrobust.interrupts import StopRequest
from jaxrobust.processes import (
    StopVote,
    from_first,
    join_processes,
    over_processes,
    recognised_cluster,
)
from jaxrobust.training import read_rows, train
from jaxrobust.training._folder import check_shared
from jaxrobust.training._loop import lost_message
from tests.xla import flags

pytestmark = pytest.mark.slow


def small(epochs=2):
    # Another order of sums changes little here: L2 has no signs, and the gradient of the
    # cross-entropy, unlike that of TRADES' KL at its start, has a direction.
    return Experiment(
        name="small",
        data=use("digits"),
        model=use("digits_cnn", width=4, batch_norm=True),
        objective=use("pgd_at", steps=2),
        threat=use("l2", eps=0.5),
        learning_rate=use("constant", value=0.05),
        epochs=epochs,
        batch_size=256,
        validation=Validation(size=64, steps=2),
    )


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def explicit(port, number):
    coordinator = f"127.0.0.1:{port}"
    return ["--coordinator", coordinator, "--processes", "2", "--process-id", str(number)], {}


def slurm(port, number):
    """What `srun` tells its tasks; nothing else is given."""
    return [], {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


class Pair:
    """Two processes with two devices each that do the same command."""

    def __init__(self, first, second, *, how=explicit):
        port, self.processes = free_port(), []
        for number, call in enumerate((first, second)):
            words, environment = how(port, number)
            command = [sys.executable, "-m", "jaxrobust.cli", *call, *words]
            environment = {
                **{
                    name: value for name, value in os.environ.items() if "proxy" not in name.lower()
                },
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": flags(2),
                **environment,
            }
            pipe = subprocess.PIPE
            self.processes.append(
                subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)
            )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            with process:  # waits, and closes its pipes
                pass

    def wait(self, seconds):
        """How both have ended, at most so much later."""
        end, found = time.monotonic() + seconds, []
        for process in self.processes:
            out, err = process.communicate(timeout=max(end - time.monotonic(), 0.1))
            found.append(Ended(process.returncode, out, err))
        return found


def training(folder, *, config=None, epochs=2, workdirs=("run", "run"), more=(), how=explicit):
    """A pair that trains."""
    file, values = folder / "experiment.py", to_dict(config or small(epochs))
    file.write_text(f"from jaxrobust.experiment import from_dict\nconfig = from_dict({values!r})\n")
    calls = [["train", str(file), "--workdir", str(folder / w), *more] for w in workdirs]
    return Pair(*calls, how=how)


def until_first_row(path, pair):
    """Waits until training is under way."""
    end = time.monotonic() + 120
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end, "no row was written"
        for process in pair.processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A run of two processes that found each other as under Slurm."""
    folder = tmp_path_factory.mktemp("together")
    with training(folder, how=slurm) as pair:
        ended = pair.wait(180)
    assert [process.code for process in ended] == [0, 0], ended
    return folder / "run", ended


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same in one process with as many devices."""
    return train(small(), tmp_path_factory.mktemp("alone") / "run", devices=jax.devices()[:4])


def state_of(folder, config=None):
    """The last state, restored in this process, on one device."""
    lines, config = [], config or small()
    trained = train(
        config, folder, resume=True, devices=jax.devices()[:1], quiet=True, say=lines.append
    )
    assert lines == [f"resuming small at step {int(trained.state.step)}"]
    return jax.device_get(trained.state)


@pytest.mark.multiprocess
def test_two_processes_give_the_numbers_of_one(together, alone):
    folder, (first, second) = together
    assert "trained small to step 10" in first.out
    assert "small" not in second.out + second.err
    rows, expected = (read_rows(f / "metrics.jsonl") for f in (folder, alone.workdir))
    assert [row["step"] for row in rows] == [5, 10]
    assert rows[-1]["devices"] == 4
    for name in ("loss", "robust_accuracy", "validation_accuracy", "validation_robust_accuracy"):
        assert rows[-1][name] == pytest.approx(expected[-1][name], abs=0.02)
    chex.assert_trees_all_close(state_of(folder), jax.device_get(alone.state), rtol=0, atol=2e-5)


@pytest.fixture
def pngs(tmp_path):
    """Digits as files, so many that there is one batch more than an even number."""
    digits = load_digits()
    for part, count in (("train", 300), ("test", 100)):
        images, labels = (getattr(digits, f"{part}_{name}") for name in ("images", "labels"))
        for number in range(count):
            path = tmp_path / "pngs" / part / str(labels[number]) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(15 * images[number, ..., 0]).save(path)
    return tmp_path / "pngs"


@pytest.mark.multiprocess
@pytest.mark.parametrize("runner", ["shard_map", "pmap"])
def test_each_of_two_processes_reads_its_part_of_a_stream(pngs, tmp_path, runner):
    source = {"path": str(pngs), "channels": 1}
    config = replace(small(1), data=use("image_folder", **source, stream=True), batch_size=64)
    with training(tmp_path, config=config, more=["--runner", runner]) as pair:
        ended = pair.wait(120)
    assert [process.code for process in ended] == [0, 0], ended
    in_memory = replace(config, data=use("image_folder", **source))
    alone = train(in_memory, tmp_path / "alone", devices=jax.devices()[:4], quiet=True)
    chex.assert_trees_all_close(
        state_of(tmp_path / "run", config), jax.device_get(alone.state), rtol=0, atol=2e-5
    )


@pytest.mark.multiprocess
def test_two_processes_share_an_evaluation(together, tmp_path):
    """Also AutoAttack's; each point's result is that of one process."""
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    for folder in (shared, alone):
        shutil.copytree(together[0], folder)
    radius = ["--norm", "l2", "--eps", "0.5", "--n", "70"]
    more = ["--version", "custom", "--attacks", "apgd-ce,square"]
    calls = ["--steps", "3"], ["--attack", "autoattack", *radius, *more]
    for call in calls:
        words = ["evaluate", str(shared), *call]
        with Pair(words, words) as pair:
            first, second = pair.wait(180)
        assert [first.code, second.code] == [0, 0], (first, second)
        assert "clean" in first.out
        assert "clean" not in second.out
    evaluate_run(alone, evaluators=[evaluators.pgd(steps=3)], quiet=True)
    settings = {"version": "custom", "attacks": ["apgd-ce", "square"], "quiet": True}
    autoattack_run(alone, norm="l2", eps=[0.5], n=70, **settings, say=lambda line: None)
    rows, expected = (read_rows(folder / "rows.jsonl") for folder in (shared, alone))
    assert len(rows) == 2  # the first process's alone
    for row, other in zip(rows, expected, strict=True):
        for name in ("kind", "settings", "numbers", "checkpoint", "seed"):
            assert row[name] == other[name]
    found, wanted = (
        np.load(next(folder.glob("autoattack/*/adversarial.npz"))) for folder in (shared, alone)
    )
    assert set(found) == set(wanted)
    for name in found:  # other batch shapes round otherwise, and attacks amplify that
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-3, err_msg=name)
    assert (shared / "adversarial.png").is_file()


@pytest.mark.multiprocess
def test_a_signal_to_one_saves_on_all_and_resuming_changes_nothing(together, tmp_path):
    # Until the signal the run believes that it has longer to go.
    with training(tmp_path, epochs=2000) as pair:
        until_first_row(tmp_path / "run" / "metrics.jsonl", pair)
        pair.processes[1].send_signal(signal.SIGTERM)
        ended = pair.wait(60)
    assert [process.code for process in ended] == [143, 143], ended
    saved = max(int(step.name) for step in (tmp_path / "run" / "checkpoints").iterdir())
    for process in ended:
        assert f"stopped by signal 15; saved step {saved} of 10000" in process.err

    # The same again, stopped at a step that is known, and continued.
    folder = tmp_path / "again"
    folder.mkdir()
    train(small(), folder / "run", devices=jax.devices()[:4], stop_at=4)
    with training(folder, more=["--resume", "--runner", "pmap"]) as pair:
        ended = pair.wait(120)
    assert [process.code for process in ended] == [0, 0], ended
    assert "resuming small at step 4" in ended[0].out
    uninterrupted = state_of(together[0])
    chex.assert_trees_all_close(state_of(folder / "run"), uninterrupted, rtol=0, atol=2e-5)


@pytest.mark.multiprocess
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_dies_the_other_ends_with_a_message(victim, tmp_path):
    with training(tmp_path, epochs=2000) as pair:
        until_first_row(tmp_path / "run" / "metrics.jsonl", pair)
        pair.processes[victim].kill()
        survivor = pair.wait(60)[1 - victim]
    assert survivor.code not in (0, None)
    words = ("another process of small has ended", "indicates that another task died")
    assert any(word in survivor.err for word in words), survivor.err


@pytest.mark.multiprocess
def test_a_folder_that_is_not_shared_is_said_and_nothing_hangs(tmp_path):
    with training(tmp_path, workdirs=("run", "elsewhere")) as pair:
        first, second = pair.wait(90)
    assert second.code == 2
    assert "workdir must be a folder that all processes share" in second.err
    assert first.code not in (0, None)


def test_options_of_processes_are_checked(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    assert join_processes() == 1
    with pytest.raises(ValueError, match="processes and process_id must be given too"):
        join_processes(coordinator="127.0.0.1:1234")
    with pytest.raises(ValueError, match="coordinator must be given too"):
        join_processes(processes=2, process_id=0)
    with pytest.raises(ValueError, match=r"process_id must be in 0..1 for 2 processes, got 2"):
        join_processes(coordinator="127.0.0.1:1234", processes=2, process_id=2)
    with pytest.raises(ValueError, match="do not find each other"):
        join_processes(distributed=True)


def test_clusters_are_recognised(monkeypatch):
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    for name, value in slurm(1, 0)[1].items():
        monkeypatch.setenv(name, value)
    assert recognised_cluster() == "Slurm"
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert recognised_cluster() is None
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert recognised_cluster() is None
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    assert recognised_cluster() == "Kubernetes"


def test_a_process_alone(tmp_path):
    seen = []
    assert over_processes([3, 1, 2], lambda job: -job, done=seen.append) == [-3, -1, -2]
    assert seen == [3, 1, 2]
    vote = StopVote(device_mesh(None))
    assert [vote.cast(None), vote.cast(15)] == [None, 15]
    with pytest.raises(OSError, match="broken"):
        from_first(lambda: (_ for _ in ()).throw(OSError("broken")))
    with pytest.raises(ValueError, match="workdir must be a folder that all processes share"):
        check_shared(tmp_path)
    text = lost_message("small", [3, 7], RuntimeError("Gloo: closed\nmore"))
    assert "checkpoint is that of step 7: start all processes again with --resume" in text
    assert "\n" not in text
    assert "it has no checkpoint yet" in lost_message("small", [], RuntimeError())


def test_a_vote_counts_the_largest_and_comes_one_step_later(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    vote = StopVote(device_mesh(None))
    assert [vote.cast(signal_) for signal_ in (None, 15, None, None)] == [None, None, 15, None]


def test_a_handler_of_another_language_is_not_put_back():
    request = StopRequest()
    with request:
        request._previous[signal.SIGTERM] = None  # what C++ libraries leave
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
