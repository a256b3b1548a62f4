"""The example project: the commands of its page, from an empty folder, with only the wheel."""

import base64
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
import zipfile
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from tests.xla import flags

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_project"
BIN = pathlib.Path(sys.executable).parent
PAGE = (EXAMPLE / "README.md").read_text()
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)).splitlines()
LAST = 84  # step: 12 epochs of 7
# The clone is installed as editable: its entry of the path goes. The environment's own entry has a
# folder `jaxrobust` too, which holds no more than the experiments.
ONLY_THE_WHEEL = """
import pathlib, sys
here = str(pathlib.Path(__file__).parent)
clones = {p for p in sys.path if pathlib.Path(p, "jaxrobust", "__init__.py").is_file()} - {here}
sys.path[:] = [p for p in sys.path if p not in clones]
"""


def installed(folder: pathlib.Path) -> pathlib.Path:
    """A folder with the content of the wheel."""
    target = folder / "installed"
    if importlib.util.find_spec("hatchling") is not None:
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
        (wheel,) = folder.glob("jaxrobust-*.whl")
        zipfile.ZipFile(wheel).extractall(target)
    else:  # an older environment: the wheel has nothing but these folders
        built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
        wheel = built["targets"]["wheel"]
        folders = {package: package for package in wheel["packages"]} | wheel["force-include"]
        for source, place in folders.items():
            shutil.copytree(ROOT / source, target / place)
    (target / "sitecustomize.py").write_text(ONLY_THE_WHEEL)
    return target


class Project:
    """The example in a folder of its own, and a shell there."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.installed = folder / "project", installed(folder)
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns("__pycache__", "runs"))
        kept = {k: v for k, v in os.environ.items() if k != "JAXROBUST_TRUST"}
        self._environment = kept | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.installed),
            "XLA_FLAGS": flags(1),
        }

    def start(self, command: str) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(
            shlex.split(command), cwd=self.folder, env=self._environment, **pipes
        )

    def end(self, process: subprocess.Popen, code: int = 0) -> str:
        told, _ = process.communicate(timeout=300)
        assert process.returncode == code, f"{shlex.join(process.args)}\n{told}"
        return told

    def run(self, command: str, code: int = 0) -> str:
        return self.end(self.start(command), code)

    def killed(self, command: str) -> str:
        """A training that gets SIGTERM after its first epoch."""
        process, metrics = self.start(command), self.folder / "runs" / "own_nnx" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        return self.end(process, 128 + signal.SIGTERM)

    def state(self, run: str) -> tuple[int, dict[str, Any]]:
        """The last step of a run, and the whole state that its checkpoint has."""
        folder = self.folder / "runs" / run / "checkpoints"
        step = max(int(place.name) for place in folder.iterdir() if place.name.isdigit())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the devices that wrote it
            return step, ocp.PyTreeCheckpointer().restore(folder / str(step) / "default")


def test_the_commands_of_its_page(tmp_path):
    project = Project(tmp_path)
    code = (
        "import importlib.util as u, jaxrobust as j; print(j.__file__, u.find_spec('benchmarks'))"
    )
    found = project.run(shlex.join(["python", "-c", code]))
    assert found.split() == [str(project.installed / "jaxrobust" / "__init__.py"), "None"]
    train, resume, python, evaluate, autoattack, tradeoff, table = COMMANDS
    assert resume == f"{train} --resume"

    uninterrupted = project.start("python train.py with_nnx.py runs/whole")
    saved = int(project.killed(train).split("saved step ")[1].split()[0])
    assert 0 < saved < LAST
    assert f"resuming own_nnx at step {saved}" in project.run(resume)
    project.end(uninterrupted)
    (step, resumed), (other, whole) = project.state("own_nnx"), project.state("whole")
    assert step == other == LAST
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    leaves = [*zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True)]
    assert len(leaves) > 20
    assert all(np.array_equal(a, b) for a, b in leaves)

    equinox = project.start(python)
    assert "--trust shapes" in project.run(evaluate.replace(" --trust shapes", ""), code=2)
    assert "noise 0.1 " in project.run(evaluate)
    assert "AutoAttack standard, with deviations, linf eps 0.05" in project.run(autoattack)
    rows = (project.folder / "runs" / "own_nnx" / "rows.jsonl").read_text().splitlines()
    kinds = [json.loads(row)["kind"] for row in rows]
    assert kinds == ["pgd", "shapes.noise:Noise", "autoattack"]
    assert json.loads(rows[1])["provenance"]["sources"]["shapes"].startswith("sha256 ")

    project.end(equinox)
    lines = (project.folder / "log.csv").read_text().splitlines()
    assert [int(line.split(",")[0]) for line in lines] == 2 * [*range(7, LAST + 1, 7)]

    told = project.run(tradeoff)
    assert "NNX, seed 0: finished earlier" in told  # its rows are those of the evaluations
    folder = project.folder / "runs" / "own_tradeoff"
    results = json.loads((folder / "results.json").read_text())
    assert [*results["members"]] == ["NNX", "Equinox", "library"]
    page, printed = (folder / "report.html").read_text(), project.run(table).splitlines()
    assert "| noise 0.05 | noise 0.1 | noise 0.2 | AutoAttack linf 0.05, 32 images |" in printed[0]
    for line, (name, member) in zip(printed[2:], results["members"].items(), strict=True):
        assert "failure" not in member
        assert [row["kind"] for row in member["runs"][0]["rows"]] == kinds
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == name
        assert all(re.fullmatch(r"[\d.]+ ±[\d.]+", cell) for cell in cells[1:])
        for number in member["runs"][0]["rows"][1]["numbers"]:
            assert f">{100 * number['value']:.1f} ±" in page
    picture = base64.b64encode((folder / "noise.png").read_bytes()).decode()
    assert picture in page
