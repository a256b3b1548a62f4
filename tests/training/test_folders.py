"""The folder of a run: claimed late, held by one trainer, continued only by the same run."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import chex
import jax
import pytest

from jaxrobust import models
from jaxrobust.experiment import Experiment, Validation, to_dict, use
from jaxrobust.interrupts import StopRequest
from jaxrobust.storage import local_folder
from jaxrobust.training import (
    FolderInUseError,
    Interrupted,
    NonFiniteLossError,
    begun,
    load_run,
    read_config,
    read_rows,
    train,
    train_many,
)
from jaxrobust.training._folder import holding
from tests.models.test_torch_files import safetensors
from tests.test_cli_mixed import weights as torch_weights

ONE = jax.devices()[:1]
BASE = Experiment(
    name="base",
    data=use("synthetic", size=6, train=40, test=8),
    model=use("mlp", hidden=[8]),  # as it comes back from JSON
    objective=use("trades", beta=2.0, steps=1),
    threat=use("linf", eps=0.1),
    learning_rate=use("constant", value=0.05),
    epochs=2,
    batch_size=16,
    validation=Validation(size=8, steps=1),
)


def run(experiment, folder, **settings):
    lines = []
    trained = train(experiment, folder, **{"devices": ONE, "say": lines.append, **settings})
    return trained, lines


def start(experiment, folder, together):
    """Alone or with another one."""
    if together:
        both = [experiment, replace(experiment, name="other", seed=1)]
        train_many(both, [folder / "a", folder / "b"], devices=ONE)
    else:
        train(experiment, folder / "a", devices=ONE)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(BASE, folder)
    return folder


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


REFUSED = {
    "batch": (replace(BASE, batch_size=64), "batch_size must be at most the 32 training examples"),
    "model": (replace(BASE, model=use("small_cnn")), "small_cnn cannot take images of shape"),
    "soft labels": (
        replace(BASE, objective=use("mart", steps=1), batch_augment=(use("cutmix"),)),
        "the train step of base cannot be built: ",
    ),
    "held out": (replace(BASE, validation=Validation(size=40)), "size must be between 0 and 39"),
    "base": (replace(BASE, model=use("mixed_classifier", std="a", rob="b")), "holds no run"),
    "data": (replace(BASE, data=use("npz", path="none.npz")), "none.npz"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("together", [False, True])
def test_what_cannot_be_trained_leaves_no_folder(name, together, tmp_path):
    experiment, message = REFUSED[name]
    with pytest.raises((ValueError, OSError), match=message):
        start(experiment, tmp_path / "new", together)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/run"])
@pytest.mark.parametrize("together", [False, True])
def test_a_file_in_the_place_of_the_folder_is_named(place, together, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"workdir must be a folder, but .*file is a file"):
        start(BASE, tmp_path / place, together)


@pytest.mark.parametrize("together", [False, True])
def test_an_attack_that_cannot_validate_is_found_before_training(together, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxrobust.training._prepare.PGD", lambda **settings: settings["threat"])
    with pytest.raises(ValueError, match=r"base cannot be validated \(validation.size=0 leaves"):
        start(BASE, tmp_path / "new", together)
    assert not list(tmp_path.iterdir())


def test_tensorboard_that_is_not_there_is_found_first(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs tensorboardX: pip install"):
        train(BASE, tmp_path / "run", tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_a_run_without_a_first_step_may_be_started_anew(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    wrong = replace(BASE, objective=use("trades", beta=1e38, steps=1))
    with pytest.raises(NonFiniteLossError, match="no epoch was finished"):
        run(wrong, folder)
    assert read_config(folder) == wrong
    assert not begun(folder)

    def crash():
        raise RuntimeError("the compiler ran out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("jaxrobust.training._loop.compiler_options", crash)
        with pytest.raises(RuntimeError, match="ran out of memory"):
            run(BASE, folder)
    for resume in (False, True):
        shutil.copytree(folder, tmp_path / str(resume))
        run(replace(BASE, epochs=1), tmp_path / str(resume), resume=resume)
        assert begun(tmp_path / str(resume))
        assert read_config(tmp_path / str(resume)).epochs == 1
    with pytest.raises(ValueError, match="already holds the run 'base'; continue it with --resume"):
        run(BASE, tmp_path / "True")
    with pytest.raises(ValueError, match="already holds the run 'base'"):
        train_many([BASE], [tmp_path / "True"], devices=ONE)


def test_rows_of_evaluations_are_not_handed_to_another_run(tmp_path):
    """Without its checkpoints a run may be trained again, but no other under its figures."""
    folder = tmp_path / "run"
    run(replace(BASE, epochs=1), folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").rename(folder / "rows.jsonl")
    assert begun(folder)
    other = replace(BASE, epochs=1, objective=use("trades", beta=100.0, steps=1))
    with pytest.raises(ValueError, match=r"other settings.*beta"):
        run(other, folder, resume=True)
    run(replace(BASE, epochs=1), folder, resume=True)


def test_no_epochs_and_no_steps(tmp_path):
    none = replace(BASE, epochs=0)
    train_many([none, replace(none, seed=1)], [tmp_path / "a", tmp_path / "b"], devices=ONE)
    assert load_run(tmp_path / "b").step == 0
    run(none, tmp_path / "c")
    trained, _ = run(BASE, tmp_path / "c", resume=True, stop_at=0)
    assert int(trained.state.step) == 0
    with pytest.raises(ValueError, match="stop_at must be an integer of at least 0"):
        run(BASE, tmp_path / "d", stop_at=-1)
    with pytest.raises(ValueError, match="keep must be an integer of at least 1"):
        run(BASE, tmp_path / "d", keep=0)
    with pytest.raises(ValueError, match="devices must be at least one"):
        run(BASE, tmp_path / "d", devices=[])


def test_a_second_trainer_is_refused_by_name_of_the_first(copy, tmp_path):
    again = replace(BASE, name="other", seed=1)
    calls = [
        lambda: train(BASE, copy, devices=ONE),
        lambda: train(BASE, copy, devices=ONE, resume=True),
        lambda: train_many([again, BASE], [tmp_path / "new", copy], devices=ONE),
    ]
    with holding([copy], say=print):
        for call in calls:
            with pytest.raises(FolderInUseError) as refused:
                call()
            text = str(refused.value)
            assert f"{copy} is in use: training by process {os.getpid()} on " in text
            assert ", since 2" in text
            assert "\n" not in text
        assert load_run(copy).step == 4  # reading needs no lock
        (copy / "training.json").write_text("{")
        with pytest.raises(FolderInUseError, match="in use: training by another process"):
            calls[0]()
        assert not (tmp_path / "new").exists()
    assert not (copy / "training.json").exists()
    run(BASE, copy, resume=True)


@pytest.mark.multiprocess
def test_a_killed_trainer_leaves_no_lock(copy):
    code = (
        "import pathlib, sys, time\n"
        "from jaxrobust.training._folder import holding\n"
        "from etils import epath\n"
        f"with holding([epath.Path({str(copy)!r})], say=print):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError, match=f"process {other.pid} on"):
            run(BASE, copy, resume=True)
        other.kill()
    assert (copy / "training.json").exists()
    run(BASE, copy, resume=True)


def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch):
    def refuse(self, timeout):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("jaxrobust.locks.FileLock.acquire", refuse)
    lines = []
    with holding([tmp_path], say=lines.append):
        pass
    assert lines == [f"{tmp_path} cannot be locked (no flock here): use it from one process only"]  # fmt: skip


def test_reading_a_run_writes_nothing(copy):
    before = {path: path.stat().st_mtime_ns for path in [copy, *copy.rglob("*")]}
    load_run(copy)
    load_run(copy, checkpoint="last")
    assert {path: path.stat().st_mtime_ns for path in [copy, *copy.rglob("*")]} == before


def test_a_refused_resume_shows_old_and_new_values(copy):
    other = replace(BASE, objective=use("trades", beta=3.0, steps=1), seed=3, epochs=1)
    with pytest.raises(ValueError, match=r"other settings \(old -> new\): ") as refused:
        run(other, copy, resume=True)
    text = str(refused.value)
    assert "epochs 2 -> 1, objective.beta 2.0 -> 3.0, seed 0 -> 3; resume with" in text
    more = replace(BASE, threat=use("l2", eps=0.1), schedules={"awp": use("constant", value=0.01)})
    with pytest.raises(ValueError, match='schedules.awp "default" -> {"use": "constant"'):
        run(more, copy, resume=True)


def test_epochs_may_grow(copy, tmp_path):
    longer = replace(BASE, epochs=4)
    trained, lines = run(longer, copy, resume=True, quiet=True)
    assert "base grows from 2 to 4 epochs: the learning rate" in lines[0]
    assert int(trained.state.step) == 8
    assert read_config(copy) == longer
    whole, _ = run(longer, tmp_path / "whole")  # the learning rate is constant
    chex.assert_trees_all_equal(jax.device_get(trained.state), jax.device_get(whole.state))
    assert [row["epoch"] for row in read_rows(copy / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_configuration_of_a_newer_version_is_named(copy):
    values = to_dict(BASE) | {"precision": "bfloat16"}
    (copy / "config.json").write_text(json.dumps(values))
    calls = [
        lambda: load_run(copy),
        lambda: run(BASE, copy, resume=True),
        lambda: run(BASE, copy),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="config.json: the field 'precision' is unknown"):
            call()


def test_a_configuration_of_an_older_version_goes_on(copy):
    """Parts were called by `name`, and fields were missing."""
    values = to_dict(BASE)
    for name, value in values.items():
        if isinstance(value, dict) and "use" in value:
            values[name] = {"name": value["use"], "kwargs": value.get("kwargs", {})}
    del values["ema_batch_stats"], values["evaluation"]["restarts"]
    (copy / "config.json").write_text(json.dumps(values))
    assert read_config(copy) == BASE
    run(BASE, copy, resume=True)
    assert json.loads((copy / "config.json").read_text()) == to_dict(BASE)


@pytest.mark.parametrize("content", [b"", b'{"name": "x"', b"\xff\x00", b"[1]", None])
def test_a_damaged_configuration_has_a_copy(copy, content):
    path = copy / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    lines = []
    assert load_run(copy, say=lines.append).experiment == BASE
    assert len(lines) == 1
    assert f"its copy {copy / 'config.copy.json'} is used" in lines[0]
    with pytest.raises(ValueError, match="already holds the run 'base'"):
        run(BASE, copy)
    with pytest.raises(ValueError, match="other settings"):
        run(replace(BASE, seed=3), copy, resume=True)
    _, lines = run(BASE, copy, resume=True)
    assert "config.json is damaged" in lines[0]
    assert read_config(copy, say=pytest.fail) == BASE
    # Without the copy the settings cannot be compared, but the run is not lost.
    (copy / "config.copy.json").unlink()
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match="config.json is damaged"):
        load_run(copy)
    _, lines = run(BASE, copy, resume=True)
    assert "written anew, without comparing the settings" in lines[0]
    assert read_config(copy) == BASE


def test_a_configuration_that_differs_from_its_copy_is_said(copy):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"eps": 0.1', '"eps": 0.3'))
    lines = []
    assert load_run(copy, say=lines.append).experiment.threat.kwargs == {"eps": 0.3}
    (line,) = lines
    assert line.startswith(f"warning: {path} differs from its copy config.copy.json (threat.eps ")
    assert "(threat.eps 0.1 -> 0.3); if you have not changed it, it is damaged" in line


def plain_rows(folder):
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def test_a_run_that_stopped_within_an_epoch_has_the_same_rows(finished, tmp_path):
    run(BASE, tmp_path / "run", stop_at=3)
    assert [row["step"] for row in plain_rows(tmp_path / "run")] == [2]
    run(BASE, tmp_path / "run", resume=True)
    assert plain_rows(tmp_path / "run") == plain_rows(finished)


def test_rows_that_are_lost_are_said(copy):
    path = copy / "metrics.jsonl"
    first, second = path.read_text().splitlines()
    path.write_text(first.replace('"epoch": 1', '"epoch": 2') + "\n" + second + "\n")
    _, lines = run(BASE, copy, resume=True)
    lost = "is damaged: the rows of 1 of 2 finished epochs are missing"
    assert f"warning: {path} {lost}" in lines
    assert [row["epoch"] for row in plain_rows(copy)] == [2]


def test_a_line_per_epoch_where_there_is_no_bar(tmp_path, capfd):
    train(BASE, tmp_path / "a", devices=ONE)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("base: epoch 2/2, step 4/4, loss ")
    for part in (
        ", clean ",
        ", robust ",
        " examples/s, ",
        "validation clean ",
        "validation robust ",
    ):
        assert part in lines[1]
    both = [BASE, replace(BASE, seed=1)]
    train_many(both, [tmp_path / "b", tmp_path / "c"], devices=ONE)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("mean of 2 runs, base and others: epoch 2/2, step 4/4, loss ")
    train(BASE, tmp_path / "d", devices=ONE, quiet=True)
    train_many(both, [tmp_path / "e", tmp_path / "f"], devices=ONE, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_has_the_bar_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, a terminal
    _, lines = run(BASE, tmp_path / "run")
    assert lines == []


@pytest.mark.slow
@pytest.mark.multiprocess
def test_lines_come_at_once_through_a_pipe(tmp_path):
    config = tmp_path / "e.py"
    config.write_text(
        "from jaxrobust.experiment import from_dict\n"
        f"config = from_dict({to_dict(replace(BASE, epochs=100_000))!r})\n"
    )
    words = ["-m", "jaxrobust.cli", "train", str(config), "--workdir", str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *words], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout.readline().startswith("base: epoch 1/100000, ")
        # Ctrl-C, twice: whether the second one counts or not, no traceback.
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert len(error.strip().splitlines()) <= 1, error


def test_a_second_interrupt_waits_while_something_is_written():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with stop.shielded():
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_message_of_an_interruption_can_be_put_in_other_words():
    stopped = Interrupted("x stopped by signal 15; saved step 3 of 9 in runs/x", "do y", 15)
    assert str(stopped) == "x stopped by signal 15; saved step 3 of 9 in runs/x; do y"
    assert stopped.progress == "x stopped by signal 15; saved step 3 of 9 in runs/x"
    assert stopped.signal_number == 15


def test_a_tilde_is_the_home_directory(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(finished, tmp_path / "home" / "run")
    home = pathlib.Path("~") / "run"
    assert load_run("~/run").step == 4
    assert read_config(home) == BASE
    assert read_rows(home / "metrics.jsonl")[-1]["step"] == 4
    assert local_folder(home) == tmp_path / "home" / "run"
    trained, _ = run(BASE, home, resume=True)
    assert trained.workdir == tmp_path / "home" / "run"
    train_many([BASE], ["~/many"], devices=ONE)
    assert (tmp_path / "home" / "many" / "config.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    with pytest.raises(ValueError, match="no home directory is known for ~nobody-here; give an"):
        load_run("~nobody-here/run")


def test_the_bar_of_one_run_shows_its_figures(tmp_path, monkeypatch):
    seen = []
    at = "jaxrobust.training._loop.TrainingBar.update"
    monkeypatch.setattr(at, lambda bar, step, figures: seen.append((step, set(figures))))
    train(replace(BASE, epochs=1), tmp_path, devices=ONE, say=lambda line: None)
    assert [step for step, _ in seen] == [1, 2]
    assert "loss" in seen[-1][1]


def test_a_listener_gets_each_row_and_changes_nothing(finished, tmp_path):
    heard = []

    def listen(step, row):
        heard.append({"step": step, **row})
        row.clear()
        raise OSError("no network")

    _, lines = run(BASE, tmp_path / "a", on_metrics=listen, quiet=True)
    assert lines == [f"warning: on_metrics failed at step {n}: no network" for n in (2, 4)]
    rows = read_rows(tmp_path / "a" / "metrics.jsonl")
    assert heard == rows
    assert [r["loss"] for r in rows] == [r["loss"] for r in read_rows(finished / "metrics.jsonl")]
    members, steps = [BASE, replace(BASE, seed=1)], {"a": [], "b": []}
    listeners = [lambda step, row, name=name: steps[name].append(step) for name in steps]
    folders = [tmp_path / "x", tmp_path / "y"]
    train_many(members, folders, devices=ONE, quiet=True, on_metrics=listeners)
    assert steps == {"a": [2, 4], "b": [2, 4]}
    with pytest.raises(ValueError, match="on_metrics must have a listener for each of the 2 exp"):
        train_many(members, folders, devices=ONE, on_metrics=listeners[:1])


@pytest.mark.parametrize("together", [False, True])
def test_a_run_starts_from_the_weights_of_another(finished, tmp_path, together):
    base = tmp_path / "base"
    shutil.copytree(finished, base)
    weights = jax.device_get(load_run(base).logits_fn.params)
    config = replace(BASE, init_from=str(base), seed=7, ema_decay=0.5, batch_size=8)
    options = {"devices": ONE, "quiet": True, "say": lambda line: None}

    def start(**more):
        folders = [tmp_path / "a", tmp_path / "b"]
        if not together:
            return [train(config, folders[0], **options, **more)]
        return train_many([config, replace(config, seed=8)], folders, **options, **more)

    for begun_ in start(stop_at=0):
        state = jax.device_get(begun_.state)
        chex.assert_trees_all_equal(state.params, weights)
        chex.assert_trees_all_equal(state.ema_params, weights)
        assert int(state.step) == 0
    assert read_config(tmp_path / "a").init_from == str(base)
    shutil.rmtree(base)  # a run that goes on does not need it
    for trained in start(resume=True):
        assert int(trained.state.step) == 8
    rows = read_rows(tmp_path / "a" / "metrics.jsonl")
    fresh, _ = run(replace(config, init_from=None), tmp_path / "fresh")
    assert rows[0]["loss"] < read_rows(fresh.workdir / "metrics.jsonl")[0]["loss"]


def test_a_run_starts_from_a_file_or_a_published_network(tmp_path):
    model = models.wide_resnet(depth=10, width=1)
    file = safetensors(tmp_path / "w.safetensors", **torch_weights(model, 0))
    expected = models.load_torch_checkpoint(file, model)
    config = replace(
        BASE,
        data=use("synthetic", size=16, channels=3, train=40, test=8),
        model=use("wide_resnet", depth=10, width=1),
    )
    named = {"weights": str(file), "network": "wide_resnet", "depth": 10, "width": 1}
    for number, source in enumerate((str(file), named)):
        trained, _ = run(replace(config, init_from=source), tmp_path / str(number), stop_at=0)
        state = jax.device_get(trained.state)
        chex.assert_trees_all_equal(state.params, jax.device_get(expected["params"]))
        chex.assert_trees_all_equal(state.batch_stats, jax.device_get(expected["batch_stats"]))
        assert read_config(tmp_path / str(number)).init_from == source


def test_weights_that_do_not_fit_leave_no_folder(finished, tmp_path):
    wrong = {
        "none": (BASE, "init_from .*none: it is neither a run's folder nor a file of weights"),
        str(tmp_path): (BASE, "init_from .*: .* holds no run"),
        str(finished): (
            replace(BASE, model=use("mlp", hidden=[9])),
            r"init_from must hold the weights of the same network as base's, got .*: .* has shape "
            r"\(8,\) there and \(9,\) here",
        ),
    }
    for source, (config, message) in wrong.items():
        with pytest.raises(ValueError, match=message):
            run(replace(config, init_from=source), tmp_path / "new")
    assert not list(tmp_path.iterdir())
    for source in ("", {"weights": "x.pt"}):
        with pytest.raises(ValueError, match="init_from must be a run's folder, a file of weights"):
            replace(BASE, init_from=source)


@pytest.mark.slow
def test_the_default_generator_changes_nothing(finished, tmp_path):
    """Also over several devices; and checkpoints of one are continued under the other."""
    four = jax.devices()[:4]
    alone, over_four = (
        load_run(finished, checkpoint="last"),
        run(BASE, tmp_path / "a", devices=four),
    )
    shutil.copytree(finished, tmp_path / "b")
    with jax.default_prng_impl("rbg"):
        run(BASE, tmp_path / "c")
        again, _ = run(BASE, tmp_path / "d", devices=four)
        longer, _ = run(replace(BASE, epochs=3), tmp_path / "b", resume=True)
    expected = alone.logits_fn.params
    found = load_run(tmp_path / "c", checkpoint="last").logits_fn.params
    chex.assert_trees_all_equal(found, expected)
    chex.assert_trees_all_equal(jax.device_get(again.state), jax.device_get(over_four[0].state))
    assert int(longer.state.step) == 6
