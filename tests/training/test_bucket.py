"""A run in a Cloud Storage bucket; `cloud_storage` stands in for Google's."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import pytest

from jaxrobust.commands import evaluate_run, run_tradeoff
from jaxrobust.experiment import Tradeoff, to_dict
from jaxrobust.storage import append, local_folder, run_folder, write_whole
from jaxrobust.training import Checkpoints, read_config, read_rows, train
from jaxrobust.training._reporting import MetricsFile
from tests.training.test_processes import Pair, free_port, small, state_of
from tests.xla import flags

ROOT = pathlib.Path(__file__).parents[2]


def answers(port):
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@pytest.fixture(scope="module")
def bucket():
    """`gs://bucket`, and the environment in which it is found."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.training.cloud_storage", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    changed = {
        "STORAGE_EMULATOR_HOST": address,
        "TENSORSTORE_GCS_HTTP_URL": address,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changed.items():
            patch.setenv(name, value)
        end = time.monotonic() + 60
        while not answers(port):
            assert time.monotonic() < end
            assert server.poll() is None
            time.sleep(0.1)
        yield "gs://bucket"
    server.kill()
    server.wait()


def downloaded(address, folder):
    """What `gcloud storage cp --recursive` does."""
    import gcsfs

    fs = gcsfs.GCSFileSystem(token="anon", endpoint_url=os.environ["STORAGE_EMULATOR_HOST"])
    for path in fs.find(address):
        target = folder / path.removeprefix(address.removeprefix("gs://") + "/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(fs.cat(path))
    return folder


@pytest.mark.multiprocess
@pytest.mark.slow
def test_a_run_in_a_bucket_stops_goes_on_and_comes_home(bucket, tmp_path):
    run = f"{bucket}/runs/small"
    file = tmp_path / "experiment.py"
    file.write_text(
        f"from jaxrobust.experiment import from_dict\nconfig = from_dict({to_dict(small())!r})\n"
    )
    stop = (
        "import jax; from jaxrobust.experiment import load; from jaxrobust.training import train\n"
        f"train(load({str(file)!r}), {run!r}, devices=jax.devices()[:4], stop_at=7)"
    )
    environment = os.environ | {"XLA_FLAGS": flags(4)}
    subprocess.run([sys.executable, "-c", stop], check=True, env=environment, timeout=120)
    # Two processes that share nothing but the bucket go on.
    command = ["train", str(file), "--workdir", run]
    with Pair(*[[*command, "--resume"]] * 2) as pair:
        ended = pair.wait(180)
    assert [process.code for process in ended] == [0, 0], ended
    assert "resuming small at step 7" in ended[0].out
    assert f"trained small to step 10 in {run}" in ended[0].out
    assert [row["step"] for row in read_rows(run_folder(run) / "metrics.jsonl")] == [5, 10]

    home = downloaded(run, tmp_path / "home")
    assert read_config(home) == small()
    alone = train(small(), tmp_path / "alone", devices=jax.devices()[:4], quiet=True)
    chex.assert_trees_all_close(state_of(home), jax.device_get(alone.state), rtol=0, atol=2e-5)


def test_files_of_a_run_in_a_bucket(bucket):
    folder = run_folder(f"{bucket}/files")
    write_whole(folder / "a.txt", "one\n")
    append(folder / "a.txt", "two")
    assert (folder / "a.txt").read_text() == "one\ntwo\n"
    file = MetricsFile(folder / "metrics.jsonl")
    for step in (1, 2, 3):
        file.write(step, {"loss": 0.5})
    again = MetricsFile(folder / "metrics.jsonl", resume_step=2)
    again.write(3, {"loss": 0.25})
    rows = read_rows(folder / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.5), (3, 0.25)]
    with pytest.raises(ValueError, match="tensorboard must be off"):
        MetricsFile(folder / "metrics.jsonl", tensorboard=True)
    with pytest.raises(ValueError, match="gs://bucket/none holds no run"):
        read_config(f"{bucket}/none")


@pytest.mark.slow
def test_damaged_checkpoints_in_a_bucket(bucket):
    folder, lines = run_folder(f"{bucket}/damaged"), []
    store = Checkpoints(folder)
    for step, score in ((1, 0.9), (2, 0.5), (3, 0.4)):
        store.save(step, {"w": np.full(3, step, np.float32)}, validation=score)
        store.wait()
    store.close()
    (folder / "1" / "metrics" / "metrics").write_text("{")
    (folder / "3" / "default" / "manifest.ocdbt").write_text("nothing")
    store = Checkpoints(folder, warn=lines.append)
    target = {"w": jax.numpy.zeros(3)}
    assert store.steps() == [1, 2, 3]
    assert store.best_step() == 1  # by the copy of its score
    step, state = store.restore_last(target)
    assert (step, state["w"].tolist()) == (2, [2, 2, 2])
    assert ["score" in line for line in lines] == [False]
    store.save(4, {"w": np.full(3, 4, np.float32)})
    store.close()
    store = Checkpoints(folder, warn=pytest.fail)
    assert store.steps() == [1, 2, 4]
    assert store.restore_last(target)[0] == 4


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # pathlib, which the command line uses, drops a slash.
    pytest.importorskip("gcsfs")
    for given in ("gs://bucket/run", pathlib.Path("gs://bucket/run")):
        assert os.fspath(run_folder(given)) == "gs://bucket/run"
        with pytest.raises(ValueError, match="gs://bucket/run is in a bucket"):
            local_folder(given)
        with pytest.raises(ValueError, match="is in a bucket"):
            evaluate_run(given)
        with pytest.raises(ValueError, match="is in a bucket, where only training writes"):
            run_tradeoff(Tradeoff(name="x", members=(small(),)), pathlib.Path(given))
    with pytest.raises(ValueError, match=r"a folder or gs://bucket/folder, got s3://bucket/run"):
        train(small(), "s3://bucket/run")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gs://bucket/run needs gcsfs: pip install"):
        train(small(), "gs://bucket/run")
    assert not list(tmp_path.iterdir())
