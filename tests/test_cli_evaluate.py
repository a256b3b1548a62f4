"""Evaluations: numbers first, rows second, pictures last; every result under its own name."""

import dataclasses
import errno
import json
import pathlib
import sys
from dataclasses import replace

import numpy as np
import pytest

from jaxrobust import attacks, evaluation, evaluators
from jaxrobust.cli_options import autoattack_options
from jaxrobust.commands import (
    _progress,
    _run_rows,
    attack_choices,
    autoattack_run,
    evaluate_run,
)
from jaxrobust.commands._identity import checkpoint_of, threat_text
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._run_rows import RunRows, latest_rows, row_lines
from jaxrobust.evaluation import Check, Row, _evaluator
from jaxrobust.evaluators import _pgd, folder_name
from jaxrobust.evaluators._settings import pgd_text
from jaxrobust.experiment import Evaluation, Experiment, Validation, use
from jaxrobust.training import load_run, train
from tests.test_cli import cli as cli  # a fixture

SMALL = Evaluation(steps=1, batch_size=360)
BASE = Experiment(
    name="base",
    data=use("digits"),
    model=use("mlp", hidden=(16,)),
    objective=use("standard"),
    threat=use("linf", eps=0.1),
    learning_rate=use("constant", value=0.1),
    epochs=2,
    batch_size=512,
    validation=Validation(size=0),
    evaluation=SMALL,
)
AUTOATTACK = ["--attack", "autoattack", "--version", "custom", "--attacks", "apgd-ce", "--n", "8"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "r"
    train(BASE, folder, quiet=True)
    return folder


@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


@pytest.fixture
def read_only(monkeypatch, trained):
    """The run's folder is somebody else's (for root permissions would not be in the way)."""
    write = pathlib.Path.write_bytes

    def write_bytes(path, content):
        if path.is_relative_to(trained):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return write(path, content)

    monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)


def rows(folder):
    path = folder / "rows.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def warnings(out):
    return [line for line in out.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("attack", [[], AUTOATTACK], ids=["pgd", "autoattack"])
def test_a_missing_matplotlib_costs_one_line(cli, trained, no_matplotlib, attack):
    before = len(rows(trained))
    code, out, err = cli("evaluate", trained, *attack)
    assert code == 0, err
    assert len(warnings(out)) == 1
    assert "figures need matplotlib" in out
    assert "clean" in out
    assert len(rows(trained)) == before + 1


@pytest.mark.parametrize("attack", [[], AUTOATTACK], ids=["pgd", "autoattack"])
def test_somebody_elses_run_is_evaluated_and_left_alone(cli, trained, read_only, attack):
    files = sorted(trained.rglob("*"))
    contents = [p.read_bytes() for p in files if p.is_file()]
    code, out, err = cli("evaluate", trained, *attack)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith(f"warning: nothing can be written to {trained} (permission denied)")
    assert len(warnings(out)) == 1
    assert any("robust accuracy" in line or "worst PGD" in line for line in lines)
    assert sorted(trained.rglob("*")) == files
    assert [p.read_bytes() for p in files if p.is_file()] == contents


@pytest.mark.parametrize("attack", [[], AUTOATTACK], ids=["pgd", "autoattack"])
def test_a_full_disk_costs_no_number(cli, trained, monkeypatch, attack):
    def full(path, row):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_run_rows, "append_row", full)
    code, out, err = cli("evaluate", trained, *attack)
    assert code == 1
    assert "clean" in out
    assert err == f"jaxrobust: no room on the disk of {trained / 'rows.jsonl'}; {AGAIN}\n"


AGAIN = "free some, then try again"


def test_pictures_that_fail_leave_the_earlier_one(cli, trained, monkeypatch):
    cli("evaluate", trained)
    before = (trained / "adversarial.png").read_bytes()

    def half(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_pgd, "draw_adversarial_images", half)
    code, out, err = cli("evaluate", trained)
    assert code == 0, err
    assert warnings(out) == [
        "warning: adversarial.png is not drawn: no room on the disk of "
        f"{trained / 'adversarial.png'}"
    ]
    assert "pictures:" not in out
    assert (trained / "adversarial.png").read_bytes() == before
    assert not list(trained.glob(".*"))


def test_the_picture_does_not_need_all_attacked_images(trained, monkeypatch):
    drawn, evaluate = [], _evaluator.evaluate

    def forgetful(*arguments, **settings):
        result = evaluate(*arguments, **settings)
        return result if len(arguments[1]) <= 8 else replace(result, adversarial_images={})

    monkeypatch.setattr(_evaluator, "evaluate", forgetful)
    monkeypatch.setattr(
        _pgd, "draw_adversarial_images", lambda path, *a, **k: drawn.append((path, a, k))
    )
    evaluate_run(trained, quiet=True, say=lambda line: None)
    ((_, (clean, adversarial, labels, predictions), settings),) = drawn
    assert clean.shape == adversarial.shape == (8, 8, 8, 1)
    assert 0 < np.abs(adversarial - clean).max() <= 0.1 + 1e-6
    assert labels.shape == predictions.shape == (8,)
    assert "margin PGD-1" in settings["title"]


WITHOUT_EFFECT = {
    "--eps": ["--eps", "8/255"],
    "--norm": ["--norm", "linf"],
    "--eps-sweep": ["--eps-sweep", "0.1,0.2"],
    "--version": ["--version", "standard"],  # the default, but given
    "--attacks": ["--attacks", "apgd-ce"],
    "--n": ["--n", "10"],
    "--seed": ["--seed", "0"],
    "--individual": ["--individual"],
}
FOR_PGD = {
    "--steps": ["--steps", "20"],
    "--restarts": ["--restarts", "1"],
    "--degrees": ["--degrees", "0"],
    "--shift-px": ["--shift-px", "1"],
}


@pytest.mark.parametrize("option", [*WITHOUT_EFFECT, *FOR_PGD])
def test_options_of_the_other_attack_are_refused(cli, trained, option):
    before = len(rows(trained))
    if option in FOR_PGD:
        words = ["--attack", "autoattack", *FOR_PGD[option]]
        expected = f"{option} is not an option of --attack autoattack, which has --norm, --eps, "
    else:
        words = WITHOUT_EFFECT[option]
        expected = f"{option} is not an option of --attack pgd, which has --steps, "
    code, out, err = cli("evaluate", trained, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"jaxrobust: {expected}")
    assert err.count("\n") == 1
    assert len(rows(trained)) == before


CHOICES = attack_choices()
LINF, CUSTOM = {"norm": "linf", "eps": 0.1}, {"version": "custom", "attacks": ("apgd-ce",)}
# Options, and the evaluator that they stand for in a run whose threat is linf 0.1.
MADE = {
    "verdict": ({"n": 8}, evaluators.verdict(**LINF, images=8)),
    "audit": (
        {**CUSTOM, "rounds": 1, "steps": 5, "seed": 2},
        evaluators.audit(attack=evaluators.autoattack(**LINF, **CUSTOM, seed=2), steps=5, rounds=1),
    ),
    "union": (
        {**CUSTOM, "linf": 0.1, "l2": 0.5},
        evaluators.union(linf=0.1, l2=0.5, **CUSTOM),
    ),
    "bracket": (
        {"norm": "l2", "radii": (0.1, 0.2), "costly": ("crown-ibp",)},
        evaluators.bracket(norm="l2", radii=(0.1, 0.2), costly=("crown-ibp",)),
    ),
    "distances": (
        {"steps": 9, "gamma": 0.1},
        evaluators.distances(norm="linf", radii=(0.1,), settings={"steps": 9, "gamma": 0.1}),
    ),
    "eps-curve": (
        {"norm": "linf", "radii": (0.1, 0.2)},
        evaluators.eps_curve(norm="linf", radii=(0.1, 0.2)),
    ),
    "certified": ({"sigma": 0.5}, evaluators.certified(sigma=0.5)),
    "spatial-grid": (
        {"max_degrees": 5.0, "counts": (1, 1, 2)},
        evaluators.spatial_grid(max_degrees=5.0, counts=(1, 1, 2)),
    ),
    "per-class": ({}, evaluators.per_class()),
    "fmn": (
        {"norm": "l1", "step_size": 2.0, "escape": False},
        evaluators.distances(
            norm="l1", attacks=("fmn",), settings={"step_size": 2.0, "escape": False}
        ),
    ),
    "pdpgd": ({}, evaluators.distances(norm="linf", attacks=("pdpgd",), radii=(0.1,))),
    "ddn": (
        {"radii": (0.5,), "levels": 256},
        evaluators.distances(
            norm="l2", attacks=("ddn",), radii=(0.5,), settings={"levels": 256}
        ),
    ),
    "sigma-zero": (
        {"sigma": 0.01},
        evaluators.distances(norm="l0", attacks=("sigma-zero",), settings={"sigma": 0.01}),
    ),
    "deepfool": (
        {"steps": 3, "n": 4},
        evaluators.distances(
            norm="linf", attacks=("deepfool",), radii=(0.1,), settings={"steps": 3}, images=4
        ),
    ),
    "superdeepfool": ({}, evaluators.distances(norm="l2", attacks=("superdeepfool",))),
    "fab": ({}, evaluators.distances(norm="linf", attacks=("fab",), radii=(0.1,))),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_every_exported_attack_is_a_choice_with_its_own_options(name):
    """A new evaluator or minimum-norm attack is one as soon as it is exported; add a row to MADE."""
    values, expected = MADE[name]
    made = CHOICES[name].make(BASE, values)
    assert made == expected
    assert all(asked.help for asked in CHOICES[name].options.values())


def test_the_choices_are_the_exports():
    exported = {name.replace("_", "-") for name in evaluators.__all__}
    assert set(CHOICES) - set(evaluation.MINIMUM_NORM) == (
        exported - {"folder-name", "pgd", "autoattack"}
    )
    fields = {field.name for field in dataclasses.fields(attacks.FMN)} - {"threat"}
    assert set(CHOICES["fmn"].options) == fields | {"norm", "radii", "n", "seed"}


REFUSED = {
    "another attack's": (
        ["--attack", "fmn", "--overshoot", "0.1"],
        "--overshoot is not an option of --attack fmn, which has --norm, ",
    ),
    "a norm": (["--attack", "ddn", "--norm", "l1"], "attacks must take norm 'l1'; ddn takes l2"),
    "no radius": (
        ["--attack", "verdict", "--norm", "l2"],
        "--eps must be given: the run's threat is linf, not l2",
    ),
    "no radii": (["--attack", "bracket", "--norm", "l2"], "--radii must be given"),
    "a number": (["--attack", "fmn", "--gamma", "x"], "--gamma must be a finite number"),
    "a list": (["--attack", "distances", "--radii", "0.1,,2"], "--radii must be a list"),
    "a radius": (["--attack", "distances", "--radii", "0.1,x"], "--radii must be a number or a"),
    "integers": (["--attack", "spatial-grid", "--counts", "1,a,2"], "--counts must be integers"),
    "steps": (["--attack", "pdpgd", "--steps", "1"], "steps must be an integer of at least 2"),
    "one norm": (["--attack", "union", "--l2", "0.5"], "at least two norms"),
    "a word": (["--attack", "verdict", "--precision", "int8"], "precision must be 'float32'"),
    "unknown": (["--attack", "fgsm"], "'fgsm' is not one of 'pgd', 'autoattack'"),
    "l0": (["--attack", "autoattack", "--norm", "l0", "--eps", "3"], "l0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_attack_cannot_take_is_one_line(cli, trained, name):
    words, expected = REFUSED[name]
    code, out, err = cli("evaluate", trained, *words)
    assert (code, out) == (2, ""), err
    assert expected in err
    assert err.count("\n") == 1


def test_a_minimum_norm_attack_from_the_command_line_is_resumed(cli, trained):
    words = ["--attack", "deepfool", "--norm", "l2", "--n", "8", "--steps", "5", "--radii", "1/10"]
    code, out, err = cli("evaluate", trained, *words)
    assert code == 0, err
    assert "Minimum-norm attacks: l2, 8 points, seed 0" in out
    assert out.count("deepfool finished, ") == 1
    assert "deepfool, steps 5: l2 0.1, 8 images" in out
    row = rows(trained)[-1]
    assert (row["kind"], row["settings"]["radii"]) == ("distances", [0.1])
    (folder,) = (trained / "distances").iterdir()
    assert (folder / "curve.png").exists()
    code, out, err = cli("evaluate", trained, *words)
    assert code == 0, err
    assert "deepfool finished" not in out, "taken from the folder"
    assert rows(trained)[-1]["cost"]["attacks"] == row["cost"]["attacks"]


A = ["--attack", "autoattack"]
VALUES = {
    "eps nan": ([*A, "--eps", "nan"], "--eps must be a radius in image units"),
    "eps inf": ([*A, "--norm", "l2", "--eps", "inf"], "--eps must be a radius in image units"),
    "eps below 0": ([*A, "--eps", "-0.1"], "at least 0 and at most 1, got '-0.1'"),
    "eps above 1": ([*A, "--eps", "8"], "(8/255, not 8)"),
    "division by 0": ([*A, "--eps", "8/0"], "--eps must be a number or a fraction"),
    "one of a sweep": ([*A, "--eps-sweep", "0.1,8/0"], "--eps-sweep must be a number"),
    "empty sweep": ([*A, "--eps-sweep", ","], "--eps-sweep must be a list with commas between"),
    "empty list": (
        [*A, "--version", "custom", "--attacks", ","],
        "--attacks must be a list with commas between, got ','",
    ),
    "no list": ([*A, "--version", "custom"], "--version custom needs a list: --attacks"),
    "list of another version": (
        [*A, "--attacks", "apgd-ce"],
        "--attacks belongs to --version custom, not to standard",
    ),
    "unknown attack": ([*A, "--version", "custom", "--attacks", "pgd"], "'pgd' is unknown"),
    "seed": ([*A, "--seed", "-1"], "-1 is not in the range"),
    "degrees": (["--degrees", "nan"], "--degrees must be a finite number of at least 0"),
    "shift": (["--shift-px", "-1"], "--shift-px must be a finite number of at least 0"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_out_of_range_are_one_line(cli, trained, name):
    words, expected = VALUES[name]
    code, out, err = cli("evaluate", trained, *words)
    assert code == 2
    assert expected in err
    assert err.startswith("jaxrobust: ")
    assert err.count("\n") == 1
    assert not out


def test_every_autoattack_has_its_own_folder(cli, trained, tmp_path):
    for words in (
        [],
        ["--checkpoint", "last"],
        ["--seed", "1"],
        ["--individual"],
        ["--eps", "0.2"],
        ["--eps", "0.2000001"],  # another number in float32
        ["--eps", "0.20000000001"],  # the same one
    ):
        code, _, err = cli("evaluate", trained, *AUTOATTACK, "--quiet", *words)
        assert code == 0, err
    twice = [w if w != "apgd-ce" else "apgd-ce,apgd-t" for w in AUTOATTACK]
    assert cli("evaluate", trained, *twice, "--quiet")[0] == 0
    folders = [f for f in (trained / "autoattack").iterdir() if (f / "report.json").exists()]
    reports = [json.loads((f / "report.json").read_text())["protocol"] for f in folders]
    assert len(folders) == 7
    for folder, protocol in zip(folders, reports, strict=True):
        for attack in protocol["attacks"]:
            assert attack["attack"] in folder.name
        assert f"seed{protocol['seed']}" in folder.name
        assert f"eps{np.float32(protocol['eps'])!s}_" in folder.name


def test_names_differ_wherever_an_evaluation_does():
    asked = evaluators.autoattack(norm="linf", eps=0.1)
    names = {folder_name("best_step10", asked, [0.1])}
    for change in (
        {"norm": "l2"},
        {"version": "plus"},
        {"version": "custom", "attacks": ("fab", "square")},
        {"seed": 1},
        {"individual": True},
        {"images": 10},
    ):
        names.add(folder_name("best_step10", replace(asked, **change), [0.1]))
    for count in (2, 199, 200):
        names.add(folder_name("best_step10", asked, [k / 1000 for k in range(1, count + 1)]))
    names |= {folder_name(start, asked, [0.1]) for start in ("last_step10", "best_step11")}
    assert len(names) == 12
    assert max(map(len, names)) < 200


def test_an_earlier_row_is_of_the_same_checkpoint_settings_threat_and_seed(trained, tmp_path):
    pgd = evaluators.pgd(steps=1)
    (row,) = evaluate_run(trained, evaluators=[pgd], quiet=True, say=lambda line: None)
    at = checkpoint_of(trained, "best")
    assert at == row.checkpoint
    asked = {"experiment": BASE, "checkpoint": at, "keeper": Keeper(trained, say=print)}

    def found(evaluator, **change):
        rows = RunRows(trained, **{**asked, **change})
        rows.make = lambda evaluator: None
        return rows.row(evaluator)

    assert found(pgd) == row
    for change in (
        {"checkpoint": {**at, "kind": "last"}},
        {"experiment": replace(BASE, threat=use("linf", eps=0.2))},
        {"experiment": replace(BASE, seed=1)},
        {"experiment": replace(BASE, data=use("synthetic"))},
    ):
        assert found(pgd, **change) is None, change
    assert found(evaluators.pgd(steps=1, restarts=2)) is None
    assert found(evaluators.per_class(attack=pgd)) is None
    assert found(pgd, experiment=replace(BASE, name="renamed", epochs=9)) == row


def test_rows_of_two_checkpoints_are_not_mixed(trained, monkeypatch):
    """Where a run was trained meanwhile, the first row is of an earlier checkpoint."""
    pgd, run = evaluators.pgd(steps=1), load_run(trained)
    evaluate_run(trained, evaluators=[pgd], quiet=True, say=lambda line: None)
    later = run._replace(step=run.step + 1)
    monkeypatch.setattr(_run_rows, "load_run", lambda *_, **__: later)
    rows = RunRows(
        trained,
        experiment=BASE,
        checkpoint=checkpoint_of(trained, "best"),
        keeper=Keeper(trained, say=print),
    )
    assert rows.row(pgd).checkpoint["step"] == run.step
    with pytest.raises(ValueError, match=f"step {run.step + 1} .* run the same command again"):
        rows.row(evaluators.pgd(steps=1, restarts=2))


@pytest.mark.slow
def test_a_log_has_a_line_per_attack_and_none_if_quiet(cli, trained, monkeypatch):
    out = cli("evaluate", trained, "--degrees", "5")[1]
    for attack in ("pgd", "margin_pgd", "spatial grid", "random transform"):
        assert out.count(f"base: {attack} finished, 360 images, ") == 1
    assert "finished" not in cli("evaluate", trained, "--quiet")[1]
    out = cli("evaluate", trained, *AUTOATTACK, "--seed", "7")[1]
    assert out.count("apgd-ce finished, ") == 1
    monkeypatch.setattr(_progress.sys, "stdout", type("Terminal", (), {"isatty": lambda s: True})())
    bar = _progress.EvaluationBar("x", say=print)
    assert bar._say is print, "standard error is no terminal"


def test_rotations_as_the_threat_of_a_run(cli, tmp_path):
    threat = use("spatial", max_degrees=15.0, max_shift_px=0.5, padding="zeros")
    config = replace(BASE, threat=threat, evaluation=replace(SMALL, spatial_grid=(1, 1, 3)))
    train(config, tmp_path / "s", quiet=True)
    code, out, err = cli("evaluate", "s")
    assert code == 0, err
    assert "spatial max_degrees 15 max_shift_px 0.5" in out
    (row,) = rows(tmp_path / "s")
    names = ["clean", "pgd (1)", "margin_pgd (1)", "spatial_grid (1 x 1 x 3)", "worst PGD and grid"]
    assert [number["column"] for number in row["numbers"]] == names
    *_, worst = (number["correct"] for number in row["numbers"])
    assert worst == min(number["correct"] for number in row["numbers"])
    assert row["detail"]["threat"] == threat_text(config)
    code, out, _ = cli("table", "s/rows.jsonl")
    assert "| spatial_grid (1 x 1 x 3), spatial max_degrees 15" in out
    code, _, err = cli("evaluate", "s", "--attack", "autoattack")
    assert "--norm must be given: the run's threat spatial has none" in err


THREATS = {
    "linf eps 0.1": use("linf", eps=0.1),
    "linf eps 0.0313725": use("linf", eps=8 / 255),
    "l2 eps 0.5": use("l2", eps=0.5),
    "spatial max_degrees 30 max_shift_px 3": use("spatial", max_degrees=30, max_shift_px=3),
}


@pytest.mark.parametrize("words", THREATS)
def test_threats_in_words(words):
    assert threat_text(replace(BASE, threat=THREATS[words])) == words


def test_failed_checks_are_told_and_kept(trained, monkeypatch):
    evaluate, kept = _evaluator.evaluate, []
    failed = Check("finite logits", False, 3.0, 0, "NaN or +inf on pgd images: 3")

    def with_nan(*arguments, **settings):
        kept.append(settings["keep_images"])
        return replace(evaluate(*arguments, **settings), checks=(failed,))

    monkeypatch.setattr(_evaluator, "evaluate", with_nan)
    said = []
    asked = [evaluators.pgd(steps=1), evaluators.spatial_grid(max_degrees=10.0, counts=(1, 1, 2))]
    found = evaluate_run(trained, evaluators=asked, quiet=True, say=said.append)
    for row in found:
        assert row.detail["checks"] == [failed._asdict()]
    assert said.count("warning: finite logits: NaN or +inf on pgd images: 3") == 2
    assert kept == [None, False], "no picture shows the images of the spatial attacks"
    assert not any(
        "warning" in line for line in row_lines(replace(found[0], detail={}), held_out=True)
    )


def test_pgd_is_named_with_all_that_its_number_depends_on():
    assert pgd_text(evaluators.pgd()) == "20"
    assert pgd_text(evaluators.pgd(restarts=2)) == "20, 2 restarts"
    assert pgd_text(evaluators.pgd(steps=5, step_size=1 / 255)) == "5, step size 0.00392157"


def test_rows_of_several_steps_are_told_apart_in_a_table(cli, trained, tmp_path):
    (row,) = evaluate_run(trained, quiet=True, say=lambda line: None)
    other = replace(row, checkpoint={"kind": "best", "step": 99})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(each.to_dict()) + "\n" for each in (row, other)))
    out = cli("table", path)[1]
    assert f"| base, step {row.checkpoint['step']} | pgd (1)" in out
    assert "| base, step 99 | pgd (1)" in out


def test_a_sweep_keeps_other_sweeps(trained):
    options = {"version": "custom", "attacks": ["apgd-ce"], "n": 8, "quiet": True}
    for eps in ([0.01, 0.02], [0.01, 0.03]):
        autoattack_run(trained, norm="linf", eps=eps, say=lambda line: None, **options)
    found = [json.loads(p.read_text()) for p in (trained / "autoattack").glob("*/sweep.json")]
    assert sorted(point["eps"] for sweep in found for point in sweep) == [0.01, 0.01, 0.02, 0.03]


def test_a_sweep_over_one_radius_twice_is_told():
    """Its table would have one column for both."""
    asked = {"norm": None, "eps": None, "version": "standard", "attacks": None}
    with pytest.raises(ValueError, match="--eps-sweep must have radii that differ"):
        autoattack_options(BASE, eps_sweep="0.1,0.05,0.1", **asked)
    assert autoattack_options(BASE, eps_sweep="0.1,0.05", **asked)["eps"] == [0.1, 0.05]


def test_a_curve_without_columns_is_printed_by_its_radii():
    points = [{"eps": eps, "value": 0.5, "low": 0.4, "high": 0.6} for eps in (0.0, 8 / 255)]
    lines = row_lines(Row("curve", (), {"points": points}, run="a"), held_out=True)
    assert lines == [
        "a, evaluated: curve",
        "  eps 0         50.00 % [40.0, 60.0]",
        "  eps 0.0313725 50.00 % [40.0, 60.0]",
    ]


def test_a_row_is_repeated_by_one_of_its_own_run_alone():
    """Runs that differ in their objective have the same task."""
    first = Row("PGD", (), kind="pgd", run="a", evaluated={"images": "1", "checkpoint": "x"})
    again = replace(first, title="again", evaluated={"images": "1", "checkpoint": "y"})
    others = [replace(first, run="b"), replace(first, evaluated={"images": "2"})]
    assert latest_rows([first, *others, again]) == [again, *others]
