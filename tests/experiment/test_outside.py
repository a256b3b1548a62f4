"""Parts from outside of the package: they train, resume and are evaluated where they are trusted."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import jax
import pytest

from jaxrobust.cli import main
from jaxrobust.commands import evaluate_run
from jaxrobust.experiment import PARTS, from_dict, load, override, to_dict, use
from jaxrobust.spec import UntrustedError
from jaxrobust.training import load_run, read_rows, train

HERE = pathlib.Path(__file__).parent
OWN = ("own", "own_parts")
ONE = {"devices": jax.devices()[:1], "quiet": True}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a project's files, which is the current one; modules are forgotten at the end."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in OWN:
        shutil.copy(HERE / f"{name}.py", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("JAXROBUST_TRUST", raising=False)
    yield folder
    forget()


def forget(*names):
    for name in names or OWN:
        sys.modules.pop(name, None)
    sys.path[:] = [place for place in sys.path if "project" not in pathlib.Path(place).parts]


def evaluate(monkeypatch, capsys, *words):
    monkeypatch.setattr("jaxrobust.cli.set_up_compilation_cache", lambda: None)
    monkeypatch.setattr(sys, "argv", ["jaxrobust", "evaluate", "--quiet", *words])
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.mark.slow
def test_it_trains_resumes_and_is_evaluated(project, monkeypatch, capsys, tmp_path):
    config = load(project / "own.py")
    assert config.packages() == OWN
    assert config.threat.args[1].kwargs == {"eps": 0.02}
    stored = to_dict(config)
    assert stored["augment"][1] == {"use": "own:darker", "kwargs": {"factor": 0.9}}
    assert stored["optimizer"]["args"][0]["use"] == "clip_by_global_norm"
    said = []
    with jax.numpy_dtype_promotion("standard"):  # Optax is not strict
        whole = train(config, tmp_path / "whole", say=said.append, **ONE)
        train(config, tmp_path / "run", stop_at=1, say=said.append, **ONE)
        with (project / "own_parts.py").open("a") as file:
            file.write("\n# changed\n")
        resumed = train(config, tmp_path / "run", resume=True, say=said.append, **ONE)
    assert any("warning: own_parts has changed since" in line for line in said)
    assert not any("warning: own has changed" in line for line in said)
    leaves = zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True)
    assert all((a == b).all() for a, b in leaves)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert rows[-1]["learning_rate"] == pytest.approx(0.0625)
    assert "pair" in rows[-1]
    # ---- elsewhere: neither trusted, nor here --------------------------------------------
    forget()
    run = str(tmp_path / "run")
    code, told = evaluate(monkeypatch, capsys, run)
    assert (code, told.count("\n")) == (2, 1)
    assert "--trust own" in told
    assert not set(OWN) & set(sys.modules)
    trust = ["--trust", "own", "--trust", "own_parts"]
    monkeypatch.chdir(tmp_path)
    code, told = evaluate(monkeypatch, capsys, run, *trust)
    assert (code, told.count("\n")) == (2, 1)
    assert "needs the module 'own" in told
    assert "install it" in told
    monkeypatch.chdir(project)
    code, told = evaluate(monkeypatch, capsys, run, *trust)
    assert code == 0, told
    assert "worst PGD" in told
    row = json.loads((tmp_path / "run" / "rows.jsonl").read_text())
    assert row["provenance"]["sources"]["own_parts"].startswith("sha256 ")
    assert "has changed since" not in told
    with (project / "own_parts.py").open("a") as file:
        file.write("\n# changed again\n")
    forget()
    code, told = evaluate(monkeypatch, capsys, run, "--steps", "1", *trust)
    assert code == 0, told
    assert "warning: own_parts has changed since" in told
    assert "the results are those of the code as it is now" in told
    with pytest.raises(UntrustedError):  # the option ends with its command
        load_run(run)
    # What an experiment names itself is trusted where it starts from such a run, too.
    config = replace(load(project / "own.py"), name="again", init_from=str(run))
    train(config, tmp_path / "again", stop_at=0, **ONE)


def test_assignments_reach_into_parts_and_are_checked_once(project):
    config = load(project / "own.py")
    words = ["threat.0.eps=8/255", "optimizer.0.max_norm=5", "augment.1.factor=1/2"]
    words += ["objective=trades", "objective.beta=3", "objective=own_parts:pairing"]
    words += ["objective.weight=1/4", "learning_rate=exponential_decay"]
    words += [f"learning_rate.{w}" for w in ("init_value=0.1", "transition_steps=9")]
    changed = override(config, [*words, "learning_rate.decay_rate=0.5"])
    assert changed.threat.args[0].kwargs == {"eps": 8 / 255}
    assert changed.optimizer.args[0].kwargs == {"max_norm": 5.0}
    assert changed.augment[1].kwargs == {"factor": 0.5}
    assert repr(changed.objective) == "own_parts:pairing(weight=0.25)"
    assert from_dict(json.loads(json.dumps(to_dict(changed))), trust=OWN) == changed
    for word, message in {
        "threat.2.eps=1": "'2' is none of the 2 parts",
        "objective.wait=1": "objective.wait is not an argument of own_parts:pairing; choose from weight",
        "objective.weight=much": "objective.weight: Input should be a valid number",
        "threat=own_parts:stripes": "made Dataset, which is no threat: it has no init",
        "augment.0.p.q=1": "no part that 'q'",
        "optimizer=own_parts:upside_down": "made function, which is no optimizer: it has no init",
        "model=own_parts:Big": "the module own_parts has no Big",
    }.items():
        with pytest.raises(ValueError, match=message) as refused:
            override(config, [word])
        assert "\n" not in str(refused.value)


def test_the_parts_of_the_page_on_contributing(project):
    """A part of every kind: one run has them all, and is evaluated."""
    text = (HERE.parents[1] / "CONTRIBUTING.md").read_text()
    for code in re.findall(r"```python\n(# (?:my_project|own)\.py\n.*?)```", text, re.S):
        (project / code[2 : code.index("\n")]).write_text(code)
    words = re.findall(r"--set (\S+=\S+)", text[text.index("jaxrobust train own.py") :])[:2]
    config = override(load(project / "own.py"), words)
    assert config.augment == (use("my_project:upside_down", p=0.5),)
    assert config.optimizer.args[0] == use("clip_by_global_norm", max_norm=5.0)
    assert config.packages() == ("my_project",)
    for name in set(PARTS) - {"transform", "teacher"}:  # a threat, and a network
        assert "my_project:" in repr(getattr(config, name)), name
        assert f"| `{name}`" in text, name
    with jax.numpy_dtype_promotion("standard"):
        assert float(config.schedule("learning_rate", 5)(5)) == pytest.approx(0.075)
        train(config, "run", **ONE)
    assert "pair" in read_rows(pathlib.Path("run/metrics.jsonl"))[-1]
    rows = evaluate_run("run", trust=("my_project",), quiet=True, say=lambda line: None)
    assert [row.kind for row in rows] == ["pgd", "my_project:Darker"]
    forget("my_project")


def test_names_of_experiment_files(project, tmp_path):
    load(project / "own.py")
    load(project / "own.py")
    other = tmp_path / "own.py"
    shutil.copy(project / "own.py", other)
    with pytest.raises(ValueError, match="the module name 'own' is taken by another module"):
        load(other)
    shutil.copy(project / "own.py", tmp_path / "json.py")
    with pytest.raises(ValueError, match="the module name 'json' is taken"):
        load(tmp_path / "json.py")


EVIL = {
    "the standard library": {"use": "os:system", "args": ["touch CALLED"]},
    "as older files": {"name": "os:system", "kwargs": {"command": "touch CALLED"}},
    "a bare text": "evil:run",
    "this package": {"use": "jaxrobust.files:replace_text", "args": ["CALLED", "x"]},
    "a module here": {"use": "evil:run"},
    "in an argument": {"use": "compose", "args": [{"use": "evil:run"}]},
    "by name": {"use": "linf", "kwargs": {"eps": {"use": "evil:run"}}},
    "in a list": {"use": "linf", "kwargs": {"eps": [0, {"a": {"use": "builtins:exec"}}]}},
    "as the class has it": {"target": "evil:run"},
    "with dots": {"use": "evil:run.__call__"},
}


@pytest.mark.parametrize("name", EVIL)
def test_a_strangers_configuration_runs_nothing(name, project):
    """Wherever it stands: loading a run imports and calls nothing that the reader did not allow."""
    (project / "evil.py").write_text(
        "import pathlib\npathlib.Path('CALLED').touch()\ndef run(*args, **kwargs): pass\n"
    )
    config = override(load(project / "own.py"), ["augment=[]"])
    folder = project / "run"
    folder.mkdir()
    for field in ("data", "model", "objective", "threat", "optimizer", "augment", "schedules"):
        values = to_dict(config)
        value = {"augment": [EVIL[name]], "schedules": {"awp": EVIL[name]}}.get(field, EVIL[name])
        (folder / "config.json").write_text(json.dumps({**values, field: value}))
        with pytest.raises(ValueError) as refused:  # noqa: PT011
            load_run(folder, trust=OWN)
        assert "\n" not in str(refused.value)
        assert not pathlib.Path("CALLED").exists()
        assert "evil" not in sys.modules


def test_what_cannot_be_trusted(project, monkeypatch):
    for package in ("os", "builtins", "__main__", "jaxrobust", "a.b"):
        with pytest.raises(ValueError, match="trust"):
            from_dict({}, trust=(package,))
    # What a trusted module has from elsewhere is not trusted by that.
    (project / "evil.py").write_text("from subprocess import run\n")
    values = to_dict(load(project / "own.py")) | {"model": {"use": "evil:run", "args": ["true"]}}
    with pytest.raises(UntrustedError, match="evil:run may not stand in a stored file"):
        from_dict(values, trust=(*OWN, "evil"))
    forget("evil")
    monkeypatch.setenv("JAXROBUST_TRUST", "own, own_parts")
    assert from_dict(to_dict(load(project / "own.py"))).name == "own"


def test_a_configuration_is_checked_without_devices(project):
    code = (
        "from jaxrobust.experiment import load, override\n"
        "config = override(load('own.py'), ['threat.1.eps=8/255'])\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
        "try: override(config, ['threat.1.eps=8'])\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "threat: eps must be one number" in done.stdout
