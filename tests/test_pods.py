"""What of docs/pods.md can be rehearsed without a pod: the script, the plans' table, the commands."""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib

import pytest

from jaxrobust.cli import cli
from jaxrobust.training import read_rows
from jaxrobust.training._reporting import MetricsFile
from tests.xla import flags

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "pods.md").read_text()
SCRIPT = ROOT / "experiments" / "pod.sh"
BASH = shutil.which("bash")

needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed")


def plan_tables():
    path = ROOT / "experiments" / "plan_table.py"
    spec = importlib.util.spec_from_file_location("plan_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands():
    """The commands of the page's shell blocks, continuation lines joined."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL))
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


# ---- the table of plans --------------------------------------------------------------------------


def test_the_table_is_that_of_the_committed_plans():
    """After a new plan: python experiments/plan_table.py --write."""
    tables = plan_tables()
    expected = tables.plan_table(ROOT / "experiments" / "results")
    assert tables.table_of(PAGE) == expected
    assert "cifar10_score_wrn28" in expected
    assert "Nothing ran" in PAGE


def test_a_plan_that_does_not_fit_and_one_that_is_none(tmp_path):
    tables = plan_tables()
    step = {"batch_size": 4096, "fits": False, "compile_seconds": 7.4}
    plan = {"experiment": "x", "topology": "v4:2x2x1", "programs": [step], "ran": False}
    (tmp_path / "plan_x.json").write_text(json.dumps(plan))
    last = tables.plan_table(tmp_path).splitlines()[-1]
    assert last == "| x | v4:2x2x1 | 4,096 | does not fit | - | - | 7 s |"
    (tmp_path / "plan_x.json").write_text(json.dumps(plan | {"ran": True}))
    with pytest.raises(ValueError, match="is no plan"):
        tables.plan_table(tmp_path)
    with pytest.raises(ValueError, match="no table"):
        tables.table_of("a page without one")


# ---- the page's commands -------------------------------------------------------------------------


def test_options_of_jaxrobust_on_the_page_exist():
    found = [line.split("jaxrobust ", 1)[1] for line in commands() if "jaxrobust " in line]
    assert {line.split()[0] for line in found} == {"plan", "train", "evaluate", "table"}
    for line in found:
        name, *words = shlex.split(line)
        context = cli.commands[name].make_context(name, words)
        experiment = context.params.get("experiment")
        assert experiment is None or (ROOT / experiment).is_file(), line


@needs_bash
def test_every_call_of_the_script_on_the_page_is_understood(tmp_path):
    calls = [line for line in commands() if line.startswith("experiments/pod.sh")]
    assert {shlex.split(line)[1] for line in calls} == {
        *("create", "install", "train", "log", "stop", "delete")
    }
    for line in calls:
        done = script(*shlex.split(line)[1:], environment={"DRY_RUN": "1"}, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        for call in done.stdout.splitlines():
            assert call.startswith(("gcloud compute tpus tpu-vm ", "tar ")), call
    others = {shlex.split(line)[0] for line in commands()}
    assert others == {"experiments/pod.sh", "jaxrobust", "gcloud", "srun"}


@needs_bash
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "usage:"),
        (("create", "pod", "zone"), "usage:"),
        (("train", "pod", "zone"), "usage:"),
        (("dance", "pod", "zone"), "usage:"),
        (("create", "pod", "zone", "v1-8"), "TYPE must begin with"),
    ],
)
def test_mistakes_are_said(words, message, tmp_path):
    done = script(*words, environment={"DRY_RUN": "1"}, folder=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "gcloud compute" not in done.stdout


@needs_bash
def test_the_slice_that_is_asked_for(tmp_path):
    def created(kind, **environment):
        environment |= {"DRY_RUN": "1"}
        return script("create", "p", "z", kind, environment=environment, folder=tmp_path).stdout

    assert "--accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite" in created(
        "v5litepod-16"
    )
    assert "--version=tpu-ubuntu2204-base" in created("v4-32")
    assert "--spot" in created("v4-32")
    assert "--spot" not in created("v6e-8", SPOT="0")


def test_requirements_of_a_tpu_vm_are_those_of_the_package():
    lines = (ROOT / "requirements-tpu.txt").read_text().splitlines()
    *tpu, package = (line for line in lines if not line.startswith("#"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert tpu == extras["tpu"]
    editable, wanted = re.fullmatch(r"--editable (\S+)\[(\w+)\]", package).groups()
    assert (ROOT / editable / "pyproject.toml").is_file()
    assert wanted in extras
    libtpu = [r for r in importlib.metadata.requires("jax") if r.startswith("libtpu")]
    assert any("extra == 'tpu'" in r or 'extra == "tpu"' in r for r in libtpu)


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="reads /proc")
def test_metrics_are_not_held_open(tmp_path):
    """A mounted bucket shows a file's rows once it is closed."""
    file, path = MetricsFile(tmp_path / "metrics.jsonl"), tmp_path / "metrics.jsonl"
    for step in (1, 2):
        file.write(step, {"loss": 0.5})
        opened = {os.path.realpath(link) for link in pathlib.Path("/proc/self/fd").iterdir()}
        assert str(path.resolve()) not in opened
    assert [row["step"] for row in read_rows(path)] == [1, 2]


# ---- the script, with a stand-in for gcloud ------------------------------------------------------

GCLOUD = r"""#!/usr/bin/env bash
# Two workers, which are folders of this machine and find each other as under Slurm.
set -euo pipefail
echo "$*" >>"$CLOUD/calls"
[[ "$1 $2 $3" == "compute tpus tpu-vm" ]]
verb=$4
shift 4
for word in "$@"; do
  case $word in
    --worker=all) workers="0 1" ;;
    --worker=*) workers=${word#*=} ;;
    --command=*) script=${word#*=} ;;
  esac
done
[[ $verb == ssh || $verb == scp ]] || exit 0
for worker in $workers; do
  export HOME="$CLOUD/worker$worker" SLURM_PROCID=$worker SLURM_LOCALID=$worker
  mkdir -p "$HOME"
  if [[ $verb == scp ]]; then cp "$1" "$HOME/${2#*:}"; else (cd "$HOME" && bash -c "$script"); fi
done
"""

UV = r"""#!/usr/bin/env bash
# `uv venv ... FOLDER`: an environment whose pip writes down what it is to install.
set -eu
for folder in "$@"; do :; done
mkdir -p "$folder/bin"
printf '#!/bin/sh\necho "$@" >>"$CLOUD/pip"; shift 3; cat "$1" >>"$CLOUD/pip"\n' >"$folder/bin/pip"
printf '#!/bin/sh\nexec "$PYTHON" -m jaxrobust.cli "$@"\n' >"$folder/bin/jaxrobust"
chmod +x "$folder/bin/pip" "$folder/bin/jaxrobust"
"""

GCSFUSE = r"""#!/usr/bin/env bash
# The bucket is a folder, the mount a link to it.
set -eu
echo "$*" >>"$CLOUD/mounts"
bucket=${@: -2:1} mount=${@: -1}
mkdir -p "$CLOUD/$bucket"
rmdir "$mount"
ln -s "$CLOUD/$bucket" "$mount"
"""


def script(*words, environment, folder):
    """Runs the script; without a stand-in in `folder`, `gcloud` is missing."""
    safe = {n: v for n, v in os.environ.items() if "proxy" not in n.lower()}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    (folder / "gcloud").touch(mode=0o755)  # never the real one
    return subprocess.run(
        [BASH, str(SCRIPT), *words],
        env={**safe, "PATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def cloud(tmp_path):
    """A cloud of one machine: `cloud(COMMAND, ...)` is pod.sh on it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("gcloud", GCLOUD), ("uv", UV), ("gcsfuse", GCSFUSE)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "CLOUD": str(tmp_path),
        "PYTHON": sys.executable,
        "PYTHONPATH": "",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags(1),
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
        "JAX_COORDINATOR_PORT": str(port),
    }

    def pod(command, *words):
        return script(command, "pod", "us-west4-a", *words, environment=environment, folder=tools)

    yield pod
    for number in pids(tmp_path):
        if alive(number):
            os.kill(number, signal.SIGKILL)


def pids(folder):
    return [int(path.read_text()) for path in folder.glob("worker*/jaxrobust/train.pid")]


def alive(number):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        state = pathlib.Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(condition, what, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.1)


def logs(folder):
    return {p.parts[-3]: p.read_text() for p in sorted(folder.glob("worker*/jaxrobust/train.log"))}


@needs_bash
@pytest.mark.skipif(shutil.which("ps") is None, reason="ps is not installed")
@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.multiprocess
@pytest.mark.slow
def test_from_nothing_to_a_run_stopped_and_resumed(cloud, tmp_path):
    assert cloud("create", "v5litepod-16").returncode == 0
    installed = cloud("install", "gs://bucket")
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "worker1" / "jaxrobust" / "jaxrobust" / "cli.py").is_file()
    assert (tmp_path / "pip").read_text().count("jax[tpu]") == 2
    assert (tmp_path / "mounts").read_text().count("--metadata-cache-ttl-secs=0") == 2

    # Longer than the test: stopped, it has not finished.
    small = ["epochs=2000", "model.width=4", "objective.steps=2", "batch_size=256"]
    options = [word for setting in small for word in ("--set", setting)]
    start = "train", "experiments/digits_trades.py", *options
    done = cloud(*start)
    assert done.returncode == 0, done.stderr
    metrics = tmp_path / "bucket" / "runs" / "digits_trades" / "metrics.jsonl"
    going = lambda: logs(tmp_path)  # noqa: E731
    until(lambda: metrics.exists() and metrics.stat().st_size, going)
    again = cloud(*start)
    assert again.returncode == 1
    assert "a run is under way" in again.stderr
    assert '"step"' in cloud("log").stdout

    assert cloud("stop").returncode == 0  # worker 0 is told, both end
    until(lambda: not any(map(alive, pids(tmp_path))), going)
    first, second = logs(tmp_path).values()
    step = int(re.search(r"stopped by signal 15; saved step (\d+) of", first)[1])
    assert f"saved step {step} of" in second
    assert (metrics.parent / "checkpoints" / str(step)).is_dir()
    rows = read_rows(metrics)
    assert {row["devices"] for row in rows} == {2}
    assert {"bytes_per_device", "examples_per_second"} <= set(rows[-1])

    assert cloud(*start, "--resume").returncode == 0
    until(lambda: f"resuming digits_trades at step {step}" in logs(tmp_path)["worker0"], going)
    until(lambda: read_rows(metrics)[-1]["step"] > step, going)
    assert cloud("stop").returncode == 0
    until(lambda: not any(map(alive, pids(tmp_path))), going)
    steps = [row["step"] for row in read_rows(metrics)]
    assert steps == sorted(set(steps))
    assert cloud("delete").returncode == 0
    assert "tpu-vm delete pod --zone=us-west4-a" in (tmp_path / "calls").read_text()
