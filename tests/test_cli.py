"""The command line: mistakes end in one clear line and exit code 2."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from jaxrobust.cli import main
from jaxrobust.commands._members import numbers_of_member
from jaxrobust.experiment import Experiment, from_dict, load, override, to_dict, use

ROOT = pathlib.Path(__file__).parents[1]
TRADES = str(ROOT / "experiments" / "digits_trades.py")
TRADEOFF = str(ROOT / "experiments" / "digits_tradeoff.py")


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs the command in this process, in an empty folder; returns (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxrobust.cli.set_up_compilation_cache", lambda: None)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["jaxrobust", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


MISTAKES = {
    "missing file": (["train", "nowhere.py"], "nowhere.py is not an experiment file"),
    "path without a clone": (
        ["tradeoff", "elsewhere/digits_demo.py"],
        "it must be an existing .py file, or a name: digits_demo",
    ),
    "wrong key": (
        ["train", TRADES, "--set", "epoch=3"],
        "'epoch' is unknown; choose from name, data",
    ),
    "wrong argument": (
        ["train", TRADES, "--set", "objective.bta=3"],
        "objective.bta is not an argument of trades; choose from beta, steps",
    ),
    "wrong value": (
        ["train", TRADES, "--set", "epochs=many"],
        "epochs: Input should be a valid integer",
    ),
    "wrong choice": (
        ["train", TRADES, "--set", "batch_norm=off"],
        "should be 'global' or 'per_device'",
    ),
    "wrong part": (
        ["train", TRADES, "--set", "objective=trade"],
        "sabr, score, standard, trades",
    ),
    "no weights": (
        ["train", TRADES, "--workdir", "new", "--init-from", "nowhere"],
        "init_from nowhere: it is neither a run's folder nor a file of weights",
    ),
    "wrong radius": (["train", TRADES, "--set", "threat.eps=8"], "image units: 8/255, not 8"),
    "no value": (["train", TRADES, "--set", "epochs"], "write path=value"),
    "wrong shape": (
        ["train", TRADES, "--set", "model=small_cnn"],
        "cannot take images of shape (8, 8, 1)",
    ),
    "not a run": (["evaluate", "nothing"], "nothing holds no run"),
    "a file": (
        ["evaluate", __file__],
        "is a file; give the folder of a run, such as runs/test_cli",
    ),
    "a trade-off": (["train", TRADEOFF], "is a trade-off: run it with `jaxrobust tradeoff`"),
    "wrong list": (
        ["list", "optimiser"],
        "'optimiser' is unknown; choose from data, generated, model",
    ),
    "generated": (
        ["plan", TRADES, "--topology", "v5e:2x2", "--generated-size", "9"],
        "--generated-size belongs to generated images, and digits_trades has none",
    ),
    "budget": (["plan", TRADES, "--budget", "much"], "'500 chip-hours'), got 'much'"),
    "no budget": (["plan", TRADES, "--budget", "0"], "above 0"),
    "no topology": (["plan", TRADES], "Missing option '--topology', or '--budget'"),
    "fid": (["plan", TRADES, "--topology", "v5e:2x2", "--fid", "2"], "--fid belongs to --budget"),
    "two topologies": (
        ["plan", TRADES, "--topology", "v5e:2x2", "--topology", "v5e:4x4"],
        "several --topology belong to --budget",
    ),
    "budget of an attack": (
        ["plan", TRADES, "--budget", "1e21", "--no-attack"],
        "--attack does not go with --budget",
    ),
    "hours of no chip": (
        ["plan", TRADES, "--budget", "500 chip-hours"],
        "a budget in chip-hours needs one topology",
    ),
    "wrong command": (["tran", TRADES], "No such command 'tran'"),
    "wrong option": (["evaluate", "x", "--steps", "0"], "0 is not in the range x>=1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_line_and_code_2(cli, name):
    words, expected = MISTAKES[name]
    code, out, err = cli(*words)
    assert code == 2
    assert expected in err
    assert "Traceback" not in out + err
    if err.startswith("jaxrobust: "):
        assert err.count("\n") == 1, err


def test_an_experiment_file_must_define_config(cli, tmp_path):
    file = tmp_path / "empty.py"
    file.write_text("x = 1\n")
    code, _, err = cli("train", file)
    assert code == 2
    assert "must define `config`" in err


def test_list_shows_names_and_arguments(cli):
    code, out, _ = cli("list")
    assert code == 0
    for word in ("trades", "digits", "digits_cnn", "linf", "sgd", "cosine", "pad_crop"):
        assert f"  {word}\n" in out
    objectives = cli("list", "objective")[1]
    assert "trades(beta=6.0, steps=10" in objectives
    before, _, after = objectives.partition("  # one attack step\n")
    assert "  pgd_at(" in before
    assert "  n_fgsm(noise=2.0" in after.partition("  # ")[0]


def test_train_evaluate_and_errors_that_lose_nothing(cli, tmp_path):
    quick = ["--set", "epochs=1", "--set", "batch_size=256", "--set", "validation.steps=2"]
    code, out, err = cli("train", TRADES, *quick, "--set", "threat.eps=26/255", "--workdir", "r")
    assert code == 0, err
    assert "trained digits_trades to step 5 in r" in out
    assert (
        json.loads((tmp_path / "r/config.json").read_text())["threat"]["kwargs"]["eps"] == 26 / 255
    )
    code, _, err = cli("train", TRADES, *quick, "--workdir", "r")
    assert code == 2
    assert "already holds the run" in err
    code, out, err = cli("evaluate", "r", "--steps", "3", "--restarts", "2")
    assert code == 0, err
    assert "worst PGD" in out
    assert (tmp_path / "r/adversarial.png").stat().st_size > 5000
    row = json.loads((tmp_path / "r/rows.jsonl").read_text())
    assert (row["kind"], row["settings"]["steps"], row["settings"]["restarts"]) == ("pgd", 3, 2)
    clean, *attacked, worst = row["numbers"]
    assert clean["total"] == 360
    assert worst["low"] < worst["value"] < worst["high"]
    assert worst["correct"] <= min(number["correct"] for number in attacked)
    for entry in ("versions", "devices", "git_commit", "time"):
        assert entry in row["provenance"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a tiny network, trained for a step or two."""
    from jaxrobust.training import train

    folder = tmp_path_factory.mktemp("trained") / "r"
    settings = ["epochs=1", "batch_size=512", "validation.size=0", "objective.steps=1"]
    config = replace(override(load(TRADES), settings), model=use("mlp", hidden=(16,)))
    train(config, folder, quiet=True)
    return folder


@pytest.mark.slow
def test_autoattack_from_the_command_line(cli, trained):
    words = ["evaluate", trained, "--attack", "autoattack", "--n", "16"]
    words += ["--version", "custom", "--attacks", "apgd-ce,fab-t"]
    code, out, err = cli(*words, "--norm", "linf", "--eps", "8/255")
    assert code == 0, err
    assert (
        "NOT the standard AutoAttack (version custom, with deviations): linf, eps 0.0313725" in out
    )
    (folder,) = (trained / "autoattack").iterdir()
    assert folder.name == "best_step2_linf_eps0.03137255_custom_apgd-ce_fab-t_seed0_first16"
    names = {f.name for f in folder.iterdir()}
    assert {"report.json", "report.txt", "adversarial.npz", "cascade.png"} <= names
    row = json.loads((trained / "rows.jsonl").read_text().splitlines()[-1])
    assert row["settings"]["eps"] == 8 / 255
    code, out, err = cli(*words, "--eps-sweep", "1/255,8/255,0.1")
    assert code == 0, err
    (path,) = (trained / "autoattack").glob("*/sweep.json")
    sweep = json.loads(path.read_text())
    values = [point["value"] for point in sweep]
    assert values == sorted(values, reverse=True)
    assert path.with_name("sweep.png").stat().st_size > 5000


@pytest.mark.slow
def test_spatial_evaluation_from_the_command_line(cli, trained):
    code, out, _ = cli("evaluate", str(trained), "--steps", "1", "--degrees", "20", "--quiet")
    assert code == 0
    assert "spatial grid (20 degrees, 0 px)" in out
    row = json.loads((trained / "rows.jsonl").read_text().splitlines()[-1])
    clean, grid, average = row["numbers"]
    assert grid["value"] <= average["value"] <= 1
    assert grid["value"] <= clean["value"]


def test_autoattack_options_are_checked(cli, trained):
    attack = ["evaluate", trained, "--attack", "autoattack"]
    for words, expected in (
        (["--norm", "l2"], "--eps must be given: the run's threat is linf, not l2"),
        (["--eps", "wide"], "--eps must be a number or a fraction such as 8/255, got 'wide'"),
        (["--eps", "8"], "eps must be a radius in image units"),
        (["--eps", "0.1", "--eps-sweep", "0.1,0.2"], "exclude each other"),
        (["--n", "400"], "images must be between 1 and the 360 test images, got 400"),
        (["--version", "strong"], "version 'strong' is unknown"),
    ):
        code, _, err = cli(*attack, *words)
        assert code == 2
        assert expected in err


@pytest.mark.slow
def test_a_tradeoff_is_not_done_twice(cli, tmp_path):
    file = tmp_path / "two.py"
    file.write_text(
        f"from dataclasses import replace\nfrom jaxrobust.experiment import Tradeoff, load, use\n"
        f"base = replace(load({TRADES!r}), name='a', model=use('mlp', hidden=(8,)), epochs=1)\n"
        f"config = Tradeoff(name='two', members=(base, replace(base, name='b', seed=1)))\n"
    )
    words = ["tradeoff", file, "--set", "batch_size=256", "--set", "validation.size=0"]
    words += ["--set", "evaluation.steps=2", "--set", "objective.steps=2", "--workdir", "t"]
    code, out, err = cli(*words)
    assert code == 0, err
    first = json.loads((tmp_path / "t/results.json").read_text())
    assert len(first["members"]) == 2
    assert (tmp_path / "t/tradeoff.png").stat().st_size > 10_000
    code, again, _ = cli(*words)
    assert code == 0
    assert again.count("finished earlier") == len(first["members"])
    second = json.loads((tmp_path / "t/results.json").read_text())
    assert first["members"] == second["members"]
    assert "±" in out


@pytest.mark.slow
def test_a_failed_member_is_shown_and_the_others_go_on(cli, tmp_path):
    file = tmp_path / "some.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from jaxrobust.experiment import Tradeoff, load, use\n"
        f"base = replace(load({TRADES!r}), epochs=1, objective=use('standard'))\n"
        "bad = replace(base, name='bad', batch_size=5000)\n"
        "config = Tradeoff(name='some', members=(bad, base), seeds=(3, 4))\n"
    )
    code, out, _ = cli("tradeoff", str(file), "--workdir", str(tmp_path / "t"), "--quiet")
    assert code == 1
    assert "bad failed: ValueError: batch_size must be at most" in out
    members = json.loads((tmp_path / "t/results.json").read_text())["members"]
    assert members["bad"]["failure"]
    rows = [run["rows"][0] for run in members["digits_trades"]["runs"]]
    assert [row["task"]["seed"] for row in rows] == [3, 4]
    values = [row["numbers"][0]["value"] for row in rows]
    clean = numbers_of_member(members["digits_trades"])["clean"]
    assert (clean.low, clean.high) == (min(values), max(values))
    assert clean.low <= clean.value <= clean.high
    code, out, _ = cli("table", str(tmp_path / "t/results.json"))
    assert code == 0
    assert "| bad | failed |" in out
    report = (tmp_path / "t/report.html").read_text()
    assert report.count("data:image/png;base64,") >= 3
    assert not re.findall(r'(?:src|href)="(?!data:|#)', report), "it must load nothing"
    assert "failed: ValueError: batch_size must be at most" in report
    assert r"digits\_trades &amp; " in report
    runs = tmp_path / "t/members/digits_trades/seed3/rows.jsonl"
    code, out, _ = cli("table", str(runs))
    assert "| digits_trades | pgd (20, 2 restarts), linf eps 0.1 | 360 |" in out
    assert cli("table", str(tmp_path / "none.json"))[0] == 2


@pytest.mark.multiprocess
def test_sigterm_to_the_command_saves_and_resumes(tmp_path):
    command = [sys.executable, "-m", "jaxrobust.cli", "train", TRADES, "--workdir", "r"]
    command += ["--set", "epochs=400", "--set", "validation.size=0"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "r" / "metrics.jsonl"
    deadline = time.time() + 240
    while not (metrics.exists() and metrics.stat().st_size) and time.time() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "saved step" in err
    assert "Traceback" not in err
    saved = int(err.split("saved step ")[1].split()[0])
    assert 0 < saved < 400 * 10
    assert (tmp_path / "r" / "checkpoints" / str(saved)).is_dir()


def test_experiments_round_trip_through_json():
    scripts = (p for p in sorted((ROOT / "experiments").glob("digits_*.py")))
    files = [p for p in scripts if "\nconfig = " in p.read_text()]
    assert files
    for file in files:
        config = load(file)
        for member in getattr(config, "members", (config,)):
            assert from_dict(json.loads(json.dumps(to_dict(member)))) == member


def test_overrides_are_typed():
    experiment = load(TRADES)
    assert isinstance(experiment, Experiment)
    changed = override(
        experiment,
        [
            "objective.beta=3",
            "threat.eps=8/255",
            "validation.size=100",
            'augment=[{"name": "flip"}]',
            "learning_rate.peak=1/10",
        ],
    )
    assert changed.objective.kwargs["beta"] == 3.0
    assert changed.threat.kwargs["eps"] == 8 / 255
    assert changed.validation.size == 100
    assert changed.augment == (use("flip"),)
    assert override(experiment, ["objective=pgd_at"]).objective == use("pgd_at")
