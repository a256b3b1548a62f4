"""How the command ends: one line, the right code, and hints that are commands."""

import ast
import errno
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import click
import pytest

from jaxrobust import cli_cache, cli_ends
from jaxrobust.cli import cli as commands
from jaxrobust.commands._stopping import resumable
from jaxrobust.reasons import no_room, one_line
from jaxrobust.training import Interrupted
from tests.test_cli import ROOT, TRADES
from tests.test_cli import cli as cli  # a fixture


def failing(monkeypatch, error):
    """Makes `jaxrobust train` fail like that."""

    def train(*_, **__):
        raise error

    monkeypatch.setattr("jaxrobust.training.train", train)


FILES = {
    "a number": ("results.json", "3"),
    "a list": ("results.json", "[1, 2]"),
    "a mapping": ("results.json", '{"members": 3}'),
    "members of another shape": ("results.json", '{"members": {"a": {"runs": []}}}'),
    "figures of another shape": ("r.json", '{"members": {"a": {"figures": {"clean": 3}}}}'),
    "a bench of another shape": ("b.json", '{"bench": "step", "rows": []}'),
    "an unknown bench": ("b.json", '{"bench": "stop"}'),
    "no JSON": ("results.json", "results"),
    "numbers in lines": ("rows.jsonl", "1\n2\n"),
    "metrics": ("metrics.jsonl", '{"step": 3, "loss": 0.1}\n'),
    "nothing": ("rows.jsonl", ""),
    "a configuration": ("config.json", '{"name": "x", "seed": 0}'),
}


@pytest.mark.parametrize("name", FILES)
def test_a_table_of_the_wrong_file_is_one_line(cli, tmp_path, name):
    file, text = FILES[name]
    (tmp_path / file).write_text(text)
    code, out, err = cli("table", file)
    assert (code, out) == (2, "")
    assert err.startswith("jaxrobust: ")
    assert err.count("\n") == 1
    assert file in err or "bench" in err


def test_a_table_of_a_picture_or_a_folder_is_one_line(cli, tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\x00")
    (tmp_path / "x.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n\xff\x00")
    assert "x.png is no text file" in cli("table", "x.png")[2]
    assert "x.jsonl holds no rows" in cli("table", "x.jsonl")[2]
    code, _, err = cli("table", ".")
    assert code == 2
    assert ". is a folder; give a file in it: results.json, rows.jsonl" in err


class Wrapped(Exception):
    """As TensorStore tells it."""


def test_a_full_disk_is_one_line_however_it_is_told(cli, monkeypatch):
    place = "/runs/x/checkpoints/3"
    told = Wrapped(f'Error writing "a" in database at "{place}": x\nNo space left on device [28]')
    for error in (OSError(errno.ENOSPC, "No space left on device", place), told):
        failing(monkeypatch, error)
        code, _, err = cli("train", TRADES, "--workdir", "r")
        assert (code, err) == (1, f"jaxrobust: no room on the disk of {place}; {AGAIN}\n")
    cause = RuntimeError("the save failed")
    cause.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert no_room(cause, "runs") == "no room on the disk of runs"
    assert no_room(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")) is None


AGAIN = "free some, then try again"


@pytest.mark.parametrize(
    "statement",
    ["1 / 0", "assert 1 == 2, 'one is two'", "'a' + 1", "{}['a']", "undefined", "'a'.upper(1)"],
)
def test_errors_of_the_users_code_name_its_line(cli, tmp_path, statement):
    (tmp_path / "mine.py").write_text(
        "from jaxrobust.experiment import Experiment, use\n"
        f"x = 1\n{statement}\nconfig = Experiment(name='x')\n"
    )
    code, out, err = cli("train", "mine.py")
    assert (code, out) == (2, "")
    assert re.search(r"mine\.py:3\b", err), err
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", [TypeError, AssertionError, FloatingPointError, ZeroDivisionError])
def test_our_own_errors_are_one_line_too(cli, monkeypatch, kind):
    import jaxrobust.experiment

    def load(path):
        return json.loads("{}")["a"] if kind is None else _raise(kind)

    monkeypatch.setattr(jaxrobust.experiment, "load", load)
    monkeypatch.delenv("JAXROBUST_DEBUG", raising=False)
    code, _, err = cli("train", TRADES)
    assert err.count("\n") == 1
    assert f"{kind.__name__}: first line second line; JAXROBUST_DEBUG=1 shows" in err
    assert re.search(r"\.py:\d+: ", err)
    assert code in (1, 2)
    monkeypatch.setenv("JAXROBUST_DEBUG", "1")
    with pytest.raises(kind):
        cli("train", TRADES)


def _raise(kind):
    raise kind("first line\n   second line")


def test_long_messages_are_cut():
    assert len(one_line(ValueError("x" * 5000))) == 600


def test_without_a_home_commands_run_without_a_cache(cli, monkeypatch, tmp_path):
    def no_home(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", no_home)
    monkeypatch.setattr(pathlib.Path, "expanduser", no_home)
    for name in ("XDG_CACHE_HOME", cli_cache.CACHE, cli_cache.ENABLED):
        monkeypatch.delenv(name, raising=False)
    cli_cache.set_up_compilation_cache()
    assert os.environ[cli_cache.ENABLED] == "false"
    assert cli("list")[0] == 0
    monkeypatch.delenv(cli_cache.ENABLED)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli_cache.set_up_compilation_cache()
    assert os.environ[cli_cache.CACHE] == str(tmp_path / "jaxrobust" / "xla")
    assert cli_cache.ENABLED not in os.environ


def test_a_cache_that_cannot_be_written_to_is_left_alone(monkeypatch, tmp_path, capsys):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(cli_cache.CACHE, str(file / "cache"))
    monkeypatch.delenv(cli_cache.ENABLED, raising=False)
    cli_cache.set_up_compilation_cache()
    assert os.environ[cli_cache.ENABLED] == "false"
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv(cli_cache.ENABLED, "true")
    monkeypatch.setenv(cli_cache.CACHE, "gs://bucket/cache")
    cli_cache.set_up_compilation_cache()
    assert os.environ[cli_cache.ENABLED] == "true"


def process(*words, **options):
    command = [sys.executable, "-m", "jaxrobust.cli", *words]
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, cwd=ROOT, **options)


def test_a_reader_that_has_seen_enough_is_no_error():
    with process("list") as running:
        running.stdout.close()  # `| head -0`
        running.wait(60)
        assert running.stderr.read() == ""


@pytest.mark.slow
@pytest.mark.multiprocess
def test_ctrl_c_twice_ends_without_a_traceback(tmp_path):
    words = ["--set", "epochs=400", "--set", "validation.size=0", "--set", "objective.steps=1"]
    with process("train", TRADES, "--workdir", str(tmp_path / "r"), *words) as running:
        metrics, deadline = tmp_path / "r" / "metrics.jsonl", time.time() + 240
        while not (metrics.exists() and metrics.stat().st_size) and time.time() < deadline:
            time.sleep(0.05)
        for _ in range(2):
            running.send_signal(signal.SIGINT)
            time.sleep(0.1)
        _, err = running.communicate(timeout=120)
    assert running.returncode in (130, -signal.SIGINT)
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "jaxrobust: interrupted"),
        (click.exceptions.Abort(), 130, "jaxrobust: interrupted"),
        (Interrupted("saved", "go on with x", 15), 143, "saved; go on with x"),
    ],
)
def test_an_interrupted_command_ends_in_one_line_and_hears_no_more_signals(
    error, code, line, capsys
):
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as stop:
            cli_ends.end(error)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == code
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("in a callback")])
def test_one_of_several_processes_does_not_wait_for_the_others_after_ctrl_c(error, monkeypatch):
    """Python's orderly end would: they are in a collective with this one, or will be."""
    if isinstance(error, RuntimeError):
        error.__cause__ = KeyboardInterrupt()
    left, before = [], signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("jaxrobust.processes.leave", left.append)
    try:
        with pytest.raises(SystemExit):
            cli_ends.end(error)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left == [130]


def test_a_ctrl_c_that_python_would_ignore_comes_again(monkeypatch, capfd):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    cli_ends.repeat_ignored_interrupts()

    class Held:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    Held(ValueError("shown"))
    assert "ValueError: shown" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        Held(KeyboardInterrupt)
        time.sleep(20)
    assert capfd.readouterr().err == ""


def test_one_more_ctrl_c_while_it_is_repeated_shows_nothing(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", None)
    cli_ends.repeat_ignored_interrupts()
    started = []

    class Interrupted:
        def __init__(self, seconds, call, words):
            self.words = words

        def start(self):
            started.append(self.words)
            if len(started) == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(threading, "Timer", Interrupted)
    sys.unraisablehook(SimpleNamespace(exc_type=KeyboardInterrupt))
    assert started == [(os.getpid(), signal.SIGINT)] * 2


FAILING = """
class Nothing:
    def __await__(self):
        yield

async def failing():
    try:
        await Nothing()
    finally:
        raise OSError(failing.__code__.co_filename)
"""


def test_work_of_orbax_that_comes_back_too_late_is_not_shown(monkeypatch, caplog):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: seen.append(unraisable))
    cli_ends.hush_orbax()
    for message in ("Event loop is closed", "another"):
        error = RuntimeError(message)
        sys.unraisablehook(SimpleNamespace(exc_type=RuntimeError, exc_value=error, object=None))
    assert [str(unraisable.exc_value) for unraisable in seen] == ["another"]
    for file in ("orbax/checkpoint/serialization.py", "mine.py"):
        failing = compile(FAILING, file, "exec")
        names = {}
        exec(failing, names)
        names["failing"]().send(None)  # nothing refers to the coroutine any more
    assert [str(unraisable.exc_value) for unraisable in seen] == ["another", "mine.py"]
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert not caplog.records


def test_warnings_are_one_line_without_their_source(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", None)
    cli_ends.plain_warnings()
    text = warnings.formatwarning(UserWarning("no room\n  left"), UserWarning, "store.py", 3)
    assert text == "warning: no room left\n"


def test_a_stopped_tradeoff_says_to_run_the_same_command_again():
    saved = "a stopped by signal 15; saved step 3 of 9 in t/a"
    with pytest.raises(Interrupted) as stopped, resumable("t"):
        raise Interrupted(saved, "continue with --resume", 15)
    assert str(stopped.value).startswith(f"{saved}; ")
    assert "run the same command again" in str(stopped.value)
    assert "--resume" not in str(stopped.value)
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)
        again = pytest.raises(Interrupted, match="run the same command again")
        with again as stopped, resumable("t"):
            signal.raise_signal(number)
        assert stopped.value.signal_number == number
        assert signal.getsignal(number) == before


def parameters(group):
    """The options of every subcommand by its words."""
    found = {}
    for name, command in group.commands.items():
        options = {
            o
            for p in command.get_params(click.Context(command))
            for o in (*p.opts, *p.secondary_opts)
        }
        found[name] = options
        if isinstance(command, click.Group):
            found |= {f"{name} {k}": v for k, v in parameters(command).items()}
    return found


# Of pip, gcloud, git and tensorflow-datasets; and what the names of negative flags begin with.
OTHERS = {
    "--no",
    "--recursive",
    "--porcelain",
    "--error-unmatch",
    "--help",
    "--file_format",
    "--data_dir",
}


def test_every_hint_is_a_command_and_an_option_that_exists():
    tree = parameters(commands)
    every = set().union(*tree.values())
    seen = 0
    for path in sorted((ROOT / "jaxrobust").rglob("*.py")):
        if path.name == "_html_style.py":  # CSS has names that begin like options
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                continue
            text = " ".join(node.value.split())
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*\w", text):
                seen += 1
                assert option in every | OTHERS, f"{path.name}: {option} in {text[:200]!r}"
            for words in re.findall(r"`jaxrobust ([^`]*)`?", text):
                name, *rest = words.split()
                assert name in tree, f"{path.name}: jaxrobust {words}"
                if isinstance(commands.commands[name], click.Group) and rest:
                    name = (
                        f"{name} {rest[0]}" if rest[0] in commands.commands[name].commands else name
                    )
                for word in rest:
                    if word.startswith("--"):
                        assert word in tree[name], f"{path.name}: jaxrobust {words}"
    assert seen > 50
