"""The Makefile's environments, made by interpreters that only pretend."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

# Knows `-c CODE`, `-m venv FOLDER` (copies itself) and `-m pip` (fails if told to).
INTERPRETER = """#!/bin/sh
{trouble}
case "$1 $2" in
  "-m venv") echo "venv {version}" >>log; mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"
    cp "$0" "$3/bin/python"
    for tool in ruff codespell mypy jaxrobust; do echo "#!/bin/sh" >"$3/bin/$tool"; done
    chmod +x "$3"/bin/* ;;
  "-m pip") echo "pip {version}" >>log; [ ! -e no_network ] ;;
  "-m sphinx") echo "sphinx {version}" >>log ;;
  "-m pytest") shift 2; echo "pytest {version} $*" >>log ;;
  *) exec {python} -IS -c "import sys; sys.version_info = tuple(map(int, '{version}'.split('.'))); $2" ;;
esac
"""
SHIM = "echo 'pyenv: command not found' >&2; echo 'It exists elsewhere.' >&2; exit 127"


class Checkout:
    """A folder with the Makefile and a PATH whose interpreters are given as name: version."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.bin = folder, folder / "path"
        self.bin.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for minor in (10, 11, 12, 13, 14):
            self.interpreter(f"python3.{minor}", f"3.{minor}")
        self.interpreter("python3", "3.11")

    def interpreter(self, name: str, version: str, trouble: str = "") -> None:
        file = self.bin / name
        file.write_text(INTERPRETER.format(version=version, trouble=trouble, python=sys.executable))
        file.chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess:
        outer = {"MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PYTHON", "PYTHON_NEWEST", "VENV"}
        environment = {k: v for k, v in os.environ.items() if k not in outer}
        environment["PATH"] = f"{self.bin}{os.pathsep}{environment['PATH']}"
        return subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True
        )

    def make(self, *words: str) -> subprocess.CompletedProcess:
        return self.run("make", *words)

    def new_requirements(self) -> None:
        os.utime(self.folder / ".venv" / ".installed", (1, 1))

    def log(self, *words: str) -> list[str]:
        """What the interpreters did in one make."""
        log = self.folder / "log"
        log.write_text("")
        self.make(*words)
        return log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


MADE = ["venv 3.11", "pip 3.11"]


def test_an_environment_is_made_once(checkout):
    assert checkout.log("demo") == MADE
    assert checkout.log("demo") == []
    checkout.new_requirements()
    assert checkout.log("demo") == ["pip 3.11"]
    assert checkout.log("demo") == []


def test_a_failed_installation_is_repaired(checkout):
    (checkout.folder / "no_network").touch()
    assert checkout.log("demo") == MADE
    (checkout.folder / "no_network").unlink()
    assert checkout.log("demo") == MADE
    assert checkout.log("demo") == []


@pytest.mark.parametrize("stage", ["venv", "pip"])
def test_an_interrupted_environment_is_repaired(checkout, stage):
    killed = f'if [ "$1 $2" = "-m {stage}" ]; then mkdir -p .venv/bin; touch .venv/half; kill -9 $PPID; fi'
    checkout.interpreter("python3", "3.11", killed)
    assert checkout.make("demo").returncode != 0
    checkout.interpreter("python3", "3.11")
    assert checkout.log("demo") == MADE
    assert not (checkout.folder / ".venv" / "half").exists()
    assert checkout.log("demo") == []


def test_an_interrupted_update_is_repaired(checkout):
    checkout.make("demo")
    checkout.new_requirements()
    (checkout.folder / "no_network").touch()
    checkout.make("demo")
    (checkout.folder / "no_network").unlink()
    assert checkout.log("demo") == MADE


def test_an_environment_whose_interpreter_is_gone_is_made_anew(checkout):
    checkout.make("demo")
    python = checkout.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert checkout.log("demo") == MADE


def test_an_environment_whose_interpreter_was_upgraded_is_made_anew(checkout):
    checkout.make("demo")
    shutil.copy(checkout.bin / "python3.12", checkout.folder / ".venv" / "bin" / "python")
    assert checkout.log("demo") == MADE


def test_an_own_environment_is_kept(checkout):
    """Made by the README's plain commands: nothing in it is deleted."""
    assert checkout.run("python3", "-m", "venv", ".venv").returncode == 0
    (checkout.folder / ".venv" / "mine").touch()
    assert checkout.log("demo") == ["pip 3.11"]
    assert (checkout.folder / ".venv" / "mine").exists()


def test_an_interpreter_named_by_hand_is_the_environment_s(checkout):
    checkout.make("demo")
    assert checkout.log("demo", "PYTHON=python3.12") == ["venv 3.12", "pip 3.12"]
    assert checkout.log("demo", "PYTHON=python3.12") == []
    assert checkout.log("demo") == []


def test_interpreters_that_cannot_serve_are_named(checkout):
    checkout.interpreter("python3.12", "3.12", SHIM)
    checkout.interpreter("python3.14", "3.14", SHIM)
    for version, message in {
        "3.12": "python3.12 cannot be run: pyenv: command not found It exists elsewhere. "
        "Name another: make demo PYTHON=python3.13\n",
        "3.0": "python3.0 cannot be run: ",
        "3.10": "jaxrobust needs Python 3.11 or newer; python3.10 is 3.10. "
        "Name another: make demo PYTHON=python3.13\n",
    }.items():
        finished = checkout.make("demo", f"PYTHON=python{version}")
        assert finished.returncode == 2
        assert finished.stderr.startswith(message), finished.stderr
        assert not (checkout.folder / ".venv").exists()


def test_a_failing_interpreter_leaves_the_environment(checkout):
    checkout.make("demo")
    checkout.interpreter("python3.12", "3.12", SHIM)
    assert checkout.make("demo", "PYTHON=python3.12").returncode == 2
    assert checkout.log("demo") == []


def test_newest_is_the_newest_that_runs(checkout):
    checkout.interpreter("python3.14", "3.14", SHIM)
    run = "pytest 3.13 -n 2 --dist loadfile -m"
    expected = ["venv 3.13", "pip 3.13", f"{run} not slow", f"{run} slow"]
    assert checkout.log("test-newest") == expected
    assert (checkout.folder / ".venv-newest").exists()
    assert not (checkout.folder / ".venv").exists()
    checkout.interpreter("python3.14", "3.14")
    assert checkout.log("test-newest")[0] == "venv 3.14"


@pytest.mark.parametrize(("target", "version"), [("test-newest-core", "3.14"), ("quick", "3.11")])
def test_cores_are_parts_of_the_suite(checkout, target, version):
    *_, run = checkout.log(target)
    rooms = run.removeprefix(f"pytest {version} -n 2 --dist loadfile -m not slow ").split()
    assert len(rooms) >= 8
    assert all((ROOT / room).exists() for room in rooms)


def test_no_newer_interpreter_is_one_line(checkout):
    for minor in (12, 13, 14):
        checkout.interpreter(f"python3.{minor}", f"3.{minor}", SHIM)
    finished = checkout.make("--silent", "test-newest")
    assert finished.returncode == 2
    assert finished.stderr.startswith(
        "None of python3.14 python3.13 python3.12 can be run; "
        "name the interpreter: make test-newest PYTHON_NEWEST=/path/to/python\n"
    )


@pytest.mark.parametrize(("newest", "runs"), [("3.13", True), ("3.12", False)])
def test_continuous_integration_runs_the_core_on_a_newer_interpreter(checkout, newest, runs):
    (checkout.folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", checkout.folder / ".ci")
    checkout.interpreter("python3", "3.12")
    for minor in (12, 13, 14):
        works = f"3.{minor}" <= newest
        checkout.interpreter(f"python3.{minor}", f"3.{minor}", "" if works else SHIM)
    (checkout.bin / "pyenv").write_text("#!/bin/sh\necho 3.12.1\n")
    (checkout.bin / "pyenv").chmod(0o755)
    finished = checkout.run("bash", ".ci/run")
    assert finished.returncode == 0, finished.stderr
    log = (checkout.folder / "log").read_text()
    for part in ("not slow", "slow"):
        assert f"pytest 3.12 -n 2 --dist loadfile -m {part}\n" in log
    assert "sphinx 3.12\n" in log
    assert ("pytest 3.13" in log) == runs
    assert ("is not run again" in finished.stdout) != runs
