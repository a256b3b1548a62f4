"""Why something failed, in one line: for warnings, results and the terminal."""

import errno
import pathlib
import re
import site
import sysconfig
import traceback
from collections.abc import Iterator

LONGEST = 600
PACKAGE = pathlib.Path(__file__).parent
FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks; of an unexpected kind also its type.

    Args:
      error: the error.

    Returns:
      At most 600 characters.

    Example:
      >>> from jaxrobust.reasons import one_line
      >>> print(one_line(KeyError("eps")))
      KeyError: 'eps'
    """
    full = no_room(error)
    if full is not None:
        return full
    text = " ".join(str(error).split())
    if not isinstance(error, ValueError | OSError) or not text:
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def first_line(error: BaseException, *, longest: int = 300) -> str:
    """The first line of a foreign error's message, or its type where it has none.

    Args:
      error: the error.
      longest: characters of it at most.

    Returns:
      The line.

    Example:
      >>> from jaxrobust.reasons import first_line
      >>> first_line(OSError("disk is gone\\nframes of another library"))
      'disk is gone'
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:longest]


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came from, the latest first."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or any(found is other for other in seen):
            continue
        seen.append(found)
        yield found
        waiting += [*getattr(found, "exceptions", ()), found.__cause__, found.__context__]


def no_room(error: BaseException, place: object = None) -> str | None:
    """The line about a full disk, if that is what the error comes from.

    Libraries wrap the system's error in their own kinds, so the messages are looked at too. The
    system names no file where one that is open cannot grow; it is then looked for in the calls.

    Args:
      error: the error.
      place: what was written, for errors that name no file.

    Returns:
      `no room on the disk of PATH`, or `None` for any other error.

    Example:
      >>> import errno
      >>> from jaxrobust.reasons import no_room
      >>> no_room(OSError(errno.ENOSPC, "No space left on device", "runs/x/results.jsonl"))
      'no room on the disk of runs/x/results.jsonl'
    """
    for found in chain(error):
        text = str(found)
        full = getattr(found, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or FULL.search(text):
            named = re.search(r"(?<![\w.])/[^\s\"'\]:,;]+", text)
            where = getattr(found, "filename", None) or place or (named and named[0])
            where = where or _path_in_calls(found) or _path_in_calls(error)
            return f"no room on the disk of {where or 'the output'}"
    return None


def _path_in_calls(error: BaseException) -> object:
    """The path that the innermost call with one has at hand."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for name in ("path", "file", "workdir", "folder"):
            value = frame.f_locals.get(name)
            if isinstance(value, pathlib.PurePath):
                return value
    return None


def place_in_code(error: BaseException) -> tuple[str, bool]:
    """Where an error arose: in the user's own code if it passed through it, else in ours.

    Args:
      error: the error, as it was caught.

    Returns:
      `file:line`, and whether it is the user's code.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}", True
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_file(f.filename)]
    theirs = [frame for frame in frames if not _installed(frame.filename)]
    ours = [frame for frame in frames if _inside(frame.filename, PACKAGE)]
    for found in (theirs, ours, frames):
        if found:
            return f"{found[-1].filename}:{found[-1].lineno}", found is theirs
    return "", False


def _is_file(name: str) -> bool:
    return pathlib.Path(name).is_file()


def _installed(name: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to this one."""
    paths = sysconfig.get_paths()
    roots = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")]
    roots += [*site.getsitepackages(), site.getusersitepackages()]
    return any(_inside(name, root) for root in [str(PACKAGE), *roots])


def _inside(name: str, folder: str | pathlib.Path) -> bool:
    return pathlib.Path(name).resolve().is_relative_to(pathlib.Path(folder).resolve())
