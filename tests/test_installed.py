"""From an empty folder, with only the wheel: what the README and the other pages tell a user to do."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

import jaxrobust
from tests.test_documents import NOTEBOOKS, PAGES, blocks
from tests.test_own_project import installed

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

ROOT = pathlib.Path(__file__).parents[1]
BIN = pathlib.Path(sys.executable).parent
FIRST = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0].splitlines()


class Shell:
    """A shell in an empty folder beside an installed wheel."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.wheel, self.folder = installed(folder), folder / "empty"
        self.folder.mkdir()
        self.environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.wheel),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
        }

    def run(self, command: str, code: int = 0) -> str:
        done = subprocess.run(
            shlex.split(command),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    return Shell(tmp_path_factory.mktemp("installed"))


CODE = {page: blocks(page, "python") for page in PAGES}
CODE |= {page: ["\n".join(blocks(page, r"\{code-cell\} python"))] for page in NOTEBOOKS}
RUN = """
import json, sys
import jaxrobust
print(jaxrobust.__file__)
for number, code in enumerate(json.load(sys.stdin)):
    exec(compile(code, f"block {number}", "exec"), {"__name__": "__main__"})
"""


@pytest.mark.parametrize("page", [p for p, code in CODE.items() if code], ids=lambda p: p.name)
def test_the_code_of_a_page_runs(page, shell, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(CODE[page]),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(shell.wheel), "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert pathlib.Path(done.stdout.splitlines()[0]).parent == shell.wheel / "jaxrobust"


def test_the_first_commands_of_the_readme(shell):
    place = shell.run('python -c "import jaxrobust; print(jaxrobust.__file__)"').strip()
    assert pathlib.Path(place).parent == shell.wheel / "jaxrobust"
    assert (shell.wheel / "jaxrobust" / "py.typed").exists()
    assert {p.name for p in (ROOT / "experiments").glob("*.py")} == {
        p.name for p in (shell.wheel / "jaxrobust" / "_experiments").glob("*.py")
    }

    install, new, train, evaluate, autoattack = FIRST
    assert "pip install" in install
    shell.run(new)
    assert "trained mine to step" in shell.run(f"{train} --set epochs=1 --quiet")
    assert "worst PGD" in shell.run(f"{evaluate} --steps 2")
    assert "AutoAttack" in shell.run(f"{autoattack} --n 8")
    assert (shell.folder / "runs" / "mine" / "rows.jsonl").exists()

    assert "digits_trades  (train)" in shell.run("jaxrobust list experiments")
    small = "--set epochs=1 --set validation.size=0 --quiet"
    assert "trained digits_trades" in shell.run(f"jaxrobust train digits_trades {small}")
    shell.run("jaxrobust new wide.py --like cifar10_score_wrn70")
    assert "no experiment of that name" in shell.run("jaxrobust train nothing", code=2)
    assert shell.run("jaxrobust --version").strip().endswith(jaxrobust.__version__)
