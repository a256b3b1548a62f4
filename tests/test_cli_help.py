"""The layout of `--help`, an example for every command, and shell completion."""

import re
import shlex

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from jaxrobust import shipped
from jaxrobust.cli import cli as commands


def every(command, path=()):
    yield path, command
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from every(inner, (*path, name))


COMMANDS = dict(every(commands))


def help_of(path, width):
    extra = {"terminal_width": width, "max_content_width": width, "prog_name": "jaxrobust"}
    shown = CliRunner().invoke(commands, [*path, "--help"], **extra)
    assert shown.exit_code == 0
    return shown.output


@pytest.mark.parametrize("path", COMMANDS, ids="-".join)
def test_no_word_is_broken_at_40_columns(path):
    wide, narrow = help_of(path, 400), help_of(path, 40)
    words = [word for word in narrow.split() if word != "\\"]
    assert words == wide.split()
    for line in narrow.splitlines():
        assert len(line) <= 40 or len(line.split()) == 1 or re.match(r" +--\S+ \S+( \\)?$", line)


@pytest.mark.parametrize("path", COMMANDS, ids="-".join)
@pytest.mark.parametrize("width", [40, 100])
def test_the_help_names_commands_that_can_be_copied(path, width):
    text = help_of(path, width).partition("Options:")[0].replace("\\\n", " ")
    examples = re.findall(r"^ *(jaxrobust .*)$", text.partition("\n")[2], re.M)
    assert examples
    for example in examples:
        _, *words = shlex.split(example)
        name = next(p for p in (tuple(words[:2]), tuple(words[:1])) if p in COMMANDS)
        assert name[: len(path)] == path
        # The options exist and the arguments fit; nothing runs.
        context = COMMANDS[name].make_context("x", words[len(name) :])
        experiment = context.params.get("experiment")
        if experiment is not None and experiment.suffix != ".py":
            assert str(experiment) in shipped.experiments()


def test_every_option_has_a_help_of_its_own():
    for path, command in COMMANDS.items():
        choices = {c for p in command.params for c in getattr(p.type, "choices", ())}
        for parameter in command.params:
            text = getattr(parameter, "help", None)
            if text:
                first = re.split("[,: ]", text)[0]  # an attack, whose option it is
                assert text[0].isupper() or text[0] == "`" or first in choices, (path, text)
                assert not text.endswith(","), (path, text)


def completed(*words, incomplete):
    return {
        item.value
        for item in ShellComplete(commands, {}, "jaxrobust", "_JAXROBUST_COMPLETE").get_completions(
            list(words), incomplete
        )
    }


def test_shells_complete_commands_options_and_experiments():
    assert completed(incomplete="tr") == {"train", "tradeoff"}
    assert "--attack" in completed("evaluate", "runs/x", incomplete="--att")
    assert {"digits_trades", "digits_tradeoff"} <= completed("train", incomplete="digits_")
    assert completed("new", "mine.py", "--like", incomplete="mnist_t") == {"mnist_trades"}
    assert {"objective", "experiments"} <= completed("list", incomplete="")
