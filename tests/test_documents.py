"""README and docs: every command and every code block runs."""

import ast
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.xla import flags

ROOT = pathlib.Path(__file__).parents[1]
BIN = pathlib.Path(sys.executable).parent


def blocks(path: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands(path: pathlib.Path) -> list[str]:
    """The commands of a page's shell blocks, continuation lines joined, comments dropped."""
    text = "\n".join(blocks(path, "bash")).replace("\\\n", " ")
    lines = (re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def shortened(command: str) -> list[str]:
    """The command with as little training and as few evaluations as it can do."""
    words = shlex.split(command)
    if words[1] in ("train", "tradeoff"):
        words += ["--set", "epochs=1", "--set", "batch_size=256"]
        words += ["--set", "evaluation.steps=2", "--set", "validation.steps=2"]
    if words[1] == "tradeoff":
        words += ["--set", "tradeoff.evaluators=[]"]
    return words


def run(words: list[str], folder: pathlib.Path) -> subprocess.CompletedProcess:
    made = {"MAKEFLAGS", "VENV", "PYTHON"}  # of the make that runs the suite
    environment = {k: v for k, v in os.environ.items() if k not in made} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags(1),
    }
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_readme_commands(tmp_path):
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    jaxrobust = [c for c in commands(ROOT / "README.md") if c.startswith("jaxrobust ")]
    assert len(jaxrobust) >= 4
    for command in jaxrobust:
        finished = run(shortened(command), tmp_path)
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    assert (tmp_path / "runs" / "digits_demo" / "tradeoff.png").stat().st_size > 10_000
    assert (tmp_path / "runs" / "digits_demo" / "results.json").exists()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_targets_are_the_plain_commands_of_the_readme():
    plain = commands(ROOT / "README.md")
    assert {"make demo", "make test"} <= set(plain)
    for target in ("demo", "test"):
        listed = run(["make", "-n", "-B", target], ROOT).stdout.splitlines()
        # Without the environment's path and quoting, each is in the README too. What notes that the
        # environment is finished is not: only `make` looks at that.
        tools = [line for line in listed if line.startswith(".venv/bin/")]
        tools = [line for line in tools if ".venv/.installed" not in line]
        assert len(tools) >= 2, listed
        for line in tools:
            bare = shlex.join(w.removeprefix(".venv/bin/") for w in shlex.split(line))
            assert any(bare == shlex.join(shlex.split(p)) for p in plain), line


def test_other_shell_commands_of_the_readme_are_known():
    """Installing is what made the environment that this test runs in."""
    known = (
        "make ",
        "python",
        "pip ",
        "jaxrobust ",
        "git clone",
        "cd ",
        "source ",
        ". ",
        "ruff",
        "codespell",
    )
    for command in commands(ROOT / "README.md"):
        assert command.startswith(known), command


METHODS = sorted((ROOT / "docs" / "methods").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *METHODS]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))


def test_links_between_pages_lead_somewhere():
    others = [ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    made = ("reference/", "project/")  # pages that `make docs` makes
    for page in [*PAGES, *NOTEBOOKS, *others]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http", *made)):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_contributing_adds_an_objective_with_one_file_and_one_line(tmp_path):
    """In a copy of the package: the command line lists the new objective and trains it."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    file, line = re.findall(r"```python\n(.*?)```", text, re.S)[:2]
    shutil.copytree(
        ROOT / "jaxrobust",
        tmp_path / "jaxrobust",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    folder = tmp_path / "jaxrobust" / "objectives"
    (folder / "_pairing.py").write_text(file)
    with (folder / "__init__.py").open("a") as init:
        init.write(line)
    experiment = str(ROOT / "experiments" / "digits_trades.py")
    small = ["--set", "objective=pairing", "--set", "epochs=1", "--set", "validation.size=0"]
    for words, expected in (
        (["list", "objective"], "pairing(weight=0.5"),
        (["train", experiment, *small, "--quiet"], "trained digits_trades to step 11"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", "from jaxrobust.cli import main; main()", *words],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_the_tables_of_the_pages_are_those_of_the_committed_results():
    """`<!-- jaxrobust table FILE -->` stands before what that command prints."""
    from benchmarks import markdown
    from jaxrobust.commands import markdown_table

    text = "\n".join(page.read_text() for page in PAGES)
    printers = {"jaxrobust": markdown_table, "python -m benchmarks": markdown.table}
    for command, printed in printers.items():
        found = re.findall(rf"<!-- {command} table (\S+) -->\n\n((?:\|.*\n)+)", text)
        assert found
        for file, table in found:
            assert table.strip() == printed(ROOT / file), f"{command} table {file}"


def test_the_fronts_of_the_pages_are_those_of_the_committed_results():
    """`<!-- jaxrobust table --fronts FILE -->` stands before the table and the comparisons."""
    from jaxrobust.commands import fronts_markdown

    text = "\n".join(page.read_text() for page in PAGES)
    found = re.findall(
        r"<!-- jaxrobust table --fronts (\S+) -->\n\n((?:\|.*\n)+\n(?:- .*\n)+)", text
    )
    assert found
    for file, shown in found:
        assert shown.strip() == fronts_markdown(ROOT / file), file


def test_the_gallery_has_every_figure_with_its_command_and_its_rows():
    text = (ROOT / "docs" / "gallery.md").read_text()
    figures = sorted((ROOT / "docs" / "figures").glob("*.png"))
    assert figures
    for path in figures:
        assert f"](figures/{path.name})" in text, f"docs/gallery.md does not show {path.name}"
    for file in re.findall(r"experiments/\w+\.py", text):
        assert (ROOT / file).exists(), file
    assert len(re.findall(r"results/\w+\.json\)", text)) >= 4


# Turns of phrase that a reader trips over, and what to write instead.
AVOIDED = {
    r"\bso many\b": "a number, with its name",
    r"\b(is|are) told\b": "gets, is reported",
    r"\btaken up\b": "reused, continued",
    r"\bof one's own\b": "your own",
    r"\b(that|which) (it|they) (has|have) of\b": "with, of",
    r"\bof which there (is|are)\b": "with",
    r"\bwithout a word\b": "silently",
    r"\bstands? (rotations|them|it|attacks)\b": "withstands",
    r"(?-i:\bNothing;)": "None.",
    r"\b(rows|results|times|noise) (is|are) of\b": "come from, apply to",
}


def texts():
    """What users read: the pages, and the docstrings of the package."""
    yield from ((page.name, page.read_text()) for page in [*PAGES, *NOTEBOOKS])
    yield from ((name, (ROOT / name).read_text()) for name in ("CHANGELOG.md", "CONTRIBUTING.md"))
    for path in sorted((ROOT / "jaxrobust").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield f"{path.name}: {getattr(node, 'name', '')}", ast.get_docstring(node) or ""


def test_phrases_that_have_to_be_read_twice_are_avoided():
    found = [
        f"{where}: {match[0]!r} (better: {better})"
        for where, text in texts()
        for phrase, better in AVOIDED.items()
        for match in re.finditer(phrase, re.sub(r"\s+", " ", text), re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


# Rules that take code, formulas and numbers for prose.
UNFIT = ("dates_times", "lexical_illusions", "misc.phrasal_adjectives", "misc.preferred_forms",
         "spelling.consistency", "typography")  # fmt: skip


def test_proselint_has_nothing_to_say(tmp_path):
    """Clichés, redundancies, needless variants, mixed metaphors, in all that a user reads."""
    proselint = shutil.which("proselint", path=pathlib.Path(sys.executable).parent)
    if proselint is None:
        pytest.skip("proselint is installed on Linux only")
    (tmp_path / "checks.json").write_text(json.dumps({"checks": dict.fromkeys(UNFIT, False)}))
    (tmp_path / "planted.md").write_text("This is a very clever solution, and the end result.\n")
    (tmp_path / "texts.md").write_text("\n\n".join(f"{where}\n\n{text}" for where, text in texts()))
    command = [proselint, "check", "--config", str(tmp_path / "checks.json")]
    planted, found = (
        subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True).stdout
        for name in ("planted.md", "texts.md")
    )
    assert planted
    assert not found, found
