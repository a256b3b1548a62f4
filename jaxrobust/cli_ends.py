"""How the `jaxrobust` command ends: in one line on standard error, with a code that says why."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from typing import Any, NoReturn

import click

from jaxrobust.cli_options import silence

DEBUG = "JAXROBUST_DEBUG"
HINT = f"{DEBUG}=1 shows the traceback"


def hush_orbax() -> None:
    """Keeps Orbax from printing the traceback of an error that it also raises.

    Its other writes and reads are then still under way: they come back to an event loop that it has
    closed, or fail once nobody waits for them.
    """
    from absl import logging as absl_logging  # makes the logger, in a class of its own

    def wanted(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or bool(os.environ.get(DEBUG))

    absl_logging.get_absl_logger().addFilter(wanted)
    # Tasks and futures whose errors nobody waits for any more.
    logging.getLogger("asyncio").addFilter(lambda record: bool(os.environ.get(DEBUG)))
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        code = getattr(unraisable.object, "cr_code", None)  # of a coroutine
        late = str(unraisable.exc_value) == "Event loop is closed"
        late |= code is not None and "orbax" in code.co_filename
        if not late or os.environ.get(DEBUG):
            before(unraisable)

    sys.unraisablehook = hook


def plain_warnings() -> None:
    """Shows warnings of the library and of others as one line each, without their source."""

    def line(message: Warning | str, *_: object, **__: object) -> str:
        return f"warning: {' '.join(str(message).split())}\n"

    warnings.formatwarning = line


def repeat_ignored_interrupts() -> None:
    """Repeats a Ctrl-C that meets a callback of the garbage collector, such as JAX's.

    Python prints the `KeyboardInterrupt` there with a traceback, and goes on as if nothing was.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if unraisable.exc_type is not KeyboardInterrupt:
            before(unraisable)
            return
        started = False
        while not started:
            with contextlib.suppress(KeyboardInterrupt):  # one more Ctrl-C, during this call
                with contextlib.suppress(RuntimeError):  # Python is ending: no new threads
                    # Later: this call belongs to the callback still.
                    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
                started = True

    sys.unraisablehook = hook


def end_at_once_on_interrupt() -> None:
    """Lets a Ctrl-C while Python itself ends show no traceback; for the end of a command."""
    atexit.register(signal.signal, signal.SIGINT, lambda number, frame: os._exit(130))


def end(error: BaseException) -> NoReturn:
    """Ends the process after an error.

    Codes: 2 for a mistake of the user, 1 for anything else, 128 + the signal's number after an
    interruption.

    Args:
      error: what the command raised.
    """
    end_at_once_on_interrupt()
    if isinstance(error, click.exceptions.Abort | KeyboardInterrupt):
        _interrupted()
    if isinstance(error, click.ClickException):
        _usage(error)
    if isinstance(error, BrokenPipeError):  # `| head` has seen enough
        silence()
        sys.exit(0)
    if os.environ.get(DEBUG):
        raise error
    _failed(error)


def _stopped(line: str, number: int) -> NoReturn:
    """Ends after a signal that all processes of a run have answered together."""
    _told_alone(line)
    sys.exit(128 + number)


def _interrupted() -> NoReturn:
    """Ends after a Ctrl-C of which no other process knows; they would wait for this one."""
    _told_alone("jaxrobust: interrupted")
    code = 128 + signal.SIGINT
    processes = sys.modules.get("jaxrobust.processes")  # where nobody has imported it, none joined
    getattr(processes, "leave", sys.exit)(code)
    sys.exit(code)


def _told_alone(line: str) -> None:
    """Prints the last line; further signals are ignored, so that nothing else appears."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    click.echo(line, err=True)


def _usage(error: click.ClickException) -> NoReturn:
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 has none
        error.show()
        sys.exit(error.exit_code)
    context = getattr(error, "ctx", None)
    line = " ".join(error.format_message().split())
    if context is not None and not line.startswith("-"):  # our own lines say all
        line = f"{line.removesuffix('.')}; see {context.command_path} --help"
    click.echo(f"jaxrobust: {line}", err=True)
    sys.exit(error.exit_code)


def _failed(error: BaseException) -> NoReturn:
    from jaxrobust.evaluation import AttackResultError
    from jaxrobust.processes import LostProcessError, leave
    from jaxrobust.reasons import chain, no_room, one_line, place_in_code
    from jaxrobust.training import CheckpointError, Interrupted, NonFiniteLossError

    if isinstance(error, Interrupted):
        _stopped(str(error), error.signal_number)
    if any(isinstance(cause, KeyboardInterrupt) for cause in chain(error)):
        _interrupted()
    line, code, place = one_line(error), 1, ""
    if no_room(error) is not None:
        line += "; free some, then try again"
    elif isinstance(error, NonFiniteLossError | AttackResultError | LostProcessError):
        line = " ".join(str(error).split())
    else:
        place, theirs = place_in_code(error)
        known = isinstance(error, ValueError | CheckpointError | OSError)
        code = 2 if known or theirs else 1
        if known:
            line = " ".join(str(error).split()) or line
        shown = place if theirs or not known else ""
        if shown and shown not in line:
            line = f"{shown}: {line}; {HINT}"
    click.echo(f"jaxrobust: {line}", err=True)
    leave(code)
