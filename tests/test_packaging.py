"""The package from outside: its version, types, experiments, and the files around it."""

import ast
import importlib.metadata
import pathlib
import re
import tomllib

import pytest
import yaml

import jaxrobust
from jaxrobust import shipped
from jaxrobust.commands import new_experiment
from jaxrobust.experiment import Experiment, Tradeoff, load

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_a_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxrobust.__version__)
    assert PROJECT["dynamic"] == ["version"]
    assert f"## {jaxrobust.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_the_root_has_what_an_experiment_file_needs():
    assert jaxrobust.Experiment is Experiment
    assert {"Experiment", "use", "attacks", "losses", "__version__"} <= set(dir(jaxrobust))
    assert not {"cli", "py"} & set(dir(jaxrobust))
    with pytest.raises(AttributeError, match="no attribute 'Trial'"):
        _ = jaxrobust.Trial


def test_types_of_the_package_are_there_for_others():
    assert (pathlib.Path(jaxrobust.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize("name", shipped.experiments())
def test_an_experiment_that_comes_with_the_library_runs_by_its_name(name):
    entry = shipped.experiments()[name]
    config = load(name)
    assert config.name == name
    assert isinstance(config, {"train": Experiment, "tradeoff": Tradeoff}[entry.command])
    assert entry.title.endswith(".")


def test_every_file_with_a_configuration_is_listed():
    files = {p.stem for p in (ROOT / "experiments").glob("*.py") if "\nconfig = " in p.read_text()}
    assert set(shipped.experiments()) == files
    assert len(files) > 20


def test_an_unknown_name_gets_suggestions():
    with pytest.raises(ValueError, match=r"did you mean digits_trades"):
        load("digits_trade")
    with pytest.raises(ValueError, match=r"zzz is not an experiment file.*list experiments"):
        load("zzz")


def test_new_writes_the_experiment_of_the_readme(tmp_path):
    told = []
    new_experiment(tmp_path / "mine.py", say=told.append)
    assert told == [f"wrote {tmp_path}/mine.py; run it with: jaxrobust train {tmp_path}/mine.py"]
    text = (tmp_path / "mine.py").read_text()
    (shown,) = re.findall(
        r"```python\n(from jaxrobust import Exp.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert text.endswith(shown)
    assert len(shown.splitlines()) <= 15
    assert load(tmp_path / "mine.py").name == "mine"


@pytest.mark.parametrize("name", shipped.experiments())
def test_new_copies_an_experiment_under_a_new_name(name, tmp_path):
    path = tmp_path / f"my_{name}.py"
    new_experiment(path, like=name, say=lambda line: None)
    config, source = load(path), load(name)
    assert config.name == f"my_{name}"
    fields = set(vars(source)) - {"name"}
    assert all(getattr(config, field) == getattr(source, field) for field in fields)
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"jaxrobust {shipped.experiments()[name].command} {path.name}" in docstring
    assert f"runs/{name}" not in docstring.replace(f"runs/my_{name}", "")


@pytest.mark.parametrize(
    ("file", "like", "message"),
    [
        ("there.py", None, "exists already"),
        ("mine.txt", None, "must be a .py file"),
        ("my-own.py", None, "must be a .py file whose name is a Python identifier"),
        ("json.py", None, "the module name 'json' is taken"),
        ("mine.py", "digits", "no experiment of that name"),
    ],
)
def test_new_refuses(file, like, message, tmp_path):
    (tmp_path / "there.py").write_text("kept")
    with pytest.raises(ValueError, match=message):
        new_experiment(tmp_path / file, like=like)
    assert [p.name for p in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text() == "kept"


def test_the_metadata_is_complete():
    minors = [c.rpartition(".")[2] for c in PROJECT["classifiers"] if ":: 3." in c]
    assert minors == ["11", "12", "13", "14"]
    assert len(PROJECT["keywords"]) >= 5
    assert importlib.metadata.version("jaxrobust")


def test_the_citation_names_title_version_and_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}
    assert required <= set(citation)
    assert citation["version"] == jaxrobust.__version__
    assert citation["license"] == PROJECT["license"]


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_workflows_are_those_that_the_pages_name():
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "tests"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_well_formed(path):
    workflow = yaml.safe_load(path.read_text())
    assert {"name", "permissions", "jobs"} <= set(workflow)
    assert True in workflow  # YAML reads `on` as a truth value
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for job in workflow["jobs"].values():
        assert job["runs-on"].startswith("ubuntu-")
        assert isinstance(job["timeout-minutes"], int)
        for need in [job["needs"]] if "needs" in job else []:
            assert need in workflow["jobs"]
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step["uses"])
            for target in re.findall(r"\bmake ([\w-]+)", step.get("run", "")):
                assert target in targets


def test_every_supported_python_is_tested():
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    versions = tests["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert all(f"Programming Language :: Python :: {v}" in PROJECT["classifiers"] for v in versions)


def test_a_release_needs_a_tag_and_no_password():
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    release = yaml.safe_load(text)
    assert release[True] == {"push": {"tags": ["v*"]}}
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "password:" not in text
    assert "secrets." not in text


def test_the_hooks_of_pre_commit_are_those_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"] for repo in hooks["repos"] for hook in repo["hooks"]]
    lint = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert entries
    for entry in entries:
        tool = entry.removeprefix(".venv/bin/").split(" --")[0]
        assert tool.removesuffix(" .") in lint.replace(" --check", "").replace("$(BIN)/", "")
