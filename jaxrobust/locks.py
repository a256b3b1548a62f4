"""A folder belongs to one writer at a time."""

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

from filelock import FileLock, Timeout

from jaxrobust.files import parse_json


class FolderInUseError(ValueError):
    """Another process writes in the folder; the message names it."""


@contextlib.contextmanager
def held(folder: pathlib.Path, *, work: str, say: Callable[[str], None] = print) -> Iterator[None]:
    """Keeps other writers of one kind out of a folder; one in which nothing was written is removed.

    The lock is a file that stays in the folder, empty; the operating system unlocks it when its
    process ends, however it ends. A file beside it names the holder, for the message only.

    Args:
      folder: made if missing.
      work: what is done there: "training" or "evaluation".
      say: told where a file system cannot lock.

    Returns:
      A context manager.

    Raises:
      FolderInUseError: if another process, or another call of this one, does such work there.
    """
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path, holder = folder / f"{work}.lock", folder / f"{work}.json"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(_taken(folder, holder, work)) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        say(f"{folder} cannot be locked ({error}): use it from one process only")
    try:
        holder.write_text(json.dumps(_this_process()) + "\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
            if {entry.name for entry in folder.iterdir()} <= {path.name}:
                path.unlink(missing_ok=True)
                for parent in missing:
                    parent.rmdir()
        lock.release()


def _this_process() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def _taken(folder: pathlib.Path, holder: pathlib.Path, work: str) -> str:
    try:
        found = parse_json(holder.read_bytes())
        who = f"process {found['process']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        who = "another process"
    return f"{folder} is in use: {work} by {who}; wait for it, or choose another folder"
