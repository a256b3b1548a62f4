"""The outcome of a trial, from exit codes, output and results."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.fault_kinds import LOST, NOISE, REFUSED, SAME, TOLD, TRACEBACK, WRONG
from benchmarks.faults._contents import differing
from benchmarks.faults._ground import Ground
from benchmarks.faults._running import SECONDS, Ended
from benchmarks.faults._scenes import SCENES

SIGNS = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error")
# Words of a line about a fallback: a file's name alone may also be part of the usual output.
FALLBACK = ("cannot be read", "damaged", "differ", "warning: ", "is used", "missing")
LONGEST = 600


class Verdict(NamedTuple):
    """The outcome of a trial.

    Attributes:
      outcome: of `fault_kinds.OUTCOMES`.
      message: the lines that it follows from.
    """

    outcome: str
    message: str = ""


class Row(NamedTuple):
    """A trial.

    Attributes:
      kind: the fault.
      command: the name of the scene.
      file: the damaged file, below the run's folder; empty for other faults.
      place: the moment, byte or size of the fault.
      outcome: of `fault_kinds.OUTCOMES`.
      message: the lines that it follows from.
    """

    kind: str
    command: str
    file: str
    place: str
    outcome: str
    message: str


def unseemly(ended: Sequence[Ended], *, one_line: bool = True) -> Verdict | None:
    """What no command may do, whatever happens to it: hang, show a traceback, or crash.

    Args:
      ended: the processes.
      one_line: whether more than one line of error is wrong too; of several processes together it
        is not, because the libraries that connect them have lines of their own.

    Returns:
      The verdict, or `None` if there is nothing of this.
    """
    for process in ended:
        if any(sign in process.text for sign in SIGNS):
            return Verdict(TRACEBACK, shortened(process.text))
        if process.code is None:
            return Verdict(LOST, f"no end within {SECONDS} s: {shortened(process.text)}")
        if process.code in (-4, -6, -7, -8, -11):  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGSEGV
            return Verdict(TRACEBACK, f"crashed by signal {-process.code}: {process.text[-300:]}")
        if one_line and len(ended) == 1 and len(process.lines()) > 1:
            return Verdict(NOISE, shortened(process.err))
    return None


def refused(
    ended: Sequence[Ended], codes: Sequence[int] = (2,), *, file: str = ""
) -> Verdict | None:
    """Whether a command ended with one line that says why; a damaged file is named somewhere."""
    for process in ended:
        if process.code in codes and len(process.lines()) == 1:
            if pathlib.Path(file).name not in process.text:
                return Verdict(LOST, f"refused without a file: {shortened(process.err)}")
            return Verdict(REFUSED, shortened(process.err))
    return None


def member_refused(ended: Sequence[Ended], file: str) -> Verdict | None:
    """Whether the only failure of a trade-off is that of a member, in a line that names a file."""
    for process in ended:
        lines = [line for line in process.out.splitlines() if " failed: " in line]
        if process.code == 1 and len(lines) == 1 and pathlib.Path(file).name in lines[0]:
            return Verdict(REFUSED, lines[0])
    return None


def failed(ended: Sequence[Ended]) -> Verdict | None:
    """A command that ended in any other way than it should."""
    for process in ended:
        if process.code:
            return Verdict(LOST, f"exit code {process.code}: {shortened(process.text)}")
    return None


def compared(ground: Ground, name: str, run: pathlib.Path, *, best: bool = True) -> Verdict:
    """Compares the result in a folder with that of the uninterrupted run.

    Args:
      ground: of the references.
      name: of the scene.
      run: the folder.
      best: whether the best checkpoint counts too, which a finished training does not read again.

    Returns:
      "same" or "wrong"; "lost" if there is no result.
    """
    try:
        found = SCENES[name].contents(run)
    except Exception as error:  # libraries raise many kinds for damaged files
        return Verdict(LOST, f"no result: {type(error).__name__}: {str(error)[:200]}")
    different = differing(found, ground.reference(name).contents)
    counted = [path for path in different if best or "best." not in path]
    return (
        Verdict(WRONG, f"differs in {shortened(', '.join(counted))}") if counted else Verdict(SAME)
    )


def finished(ground: Ground, name: str, run: pathlib.Path) -> Verdict:
    """Runs the same command to its end and compares the result."""
    ended = ground.run(name, run)
    return unseemly(ended) or failed(ended) or compared(ground, name, run)


def told(verdict: Verdict, ended: Sequence[Ended], run: pathlib.Path, file: str) -> Verdict:
    """The verdict, where another result may follow from a fallback that names the damaged file."""
    parts = pathlib.Path(file).parts
    names = [str(run.joinpath(*parts[:length])) for length in range(1, len(parts) + 1)]
    names.append(parts[-1])
    lines = [line for process in ended for line in process.text.splitlines()]
    lines = [line for line in lines if any(word in line for word in FALLBACK)]
    naming = [line for line in lines if any(name in line for name in names)]
    if verdict.outcome == WRONG and naming:
        return Verdict(TOLD, naming[0])
    return verdict


def shortened(text: str) -> str:
    """The end of a text in one line."""
    return " ".join(text.split())[-LONGEST:]
