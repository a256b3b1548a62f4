"""A run's folder belongs to one trainer at a time."""

import contextlib
import json
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from etils import epath
from filelock import FileLock, Timeout

from jaxrobust.processes import from_first
from jaxrobust.training._bucket import in_bucket, write_whole

LOCK = "train.lock"  # stays in the folder, empty; the operating system unlocks it with its process
HOLDER = "trainer.json"  # who holds it; for the message only


class FolderInUseError(ValueError):
    """Another process trains in the folder; the message names it."""


@contextlib.contextmanager
def holding(folders: Sequence[epath.Path], *, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other trainers out of folders; a folder in which nothing was written is removed.

    Of several processes the first one locks. Buckets know no locks.

    Args:
      folders: made if missing.
      say: told where a file system cannot lock.

    Raises:
      FolderInUseError: if another process, or another call of this one, trains there.
    """
    with contextlib.ExitStack() as stack:

        def lock() -> None:
            for folder in folders:
                if not in_bucket(folder):
                    stack.enter_context(_held(pathlib.Path(folder), say))

        from_first(lock)
        yield


@contextlib.contextmanager
def _held(folder: pathlib.Path, say: Callable[[str], None]) -> Iterator[None]:
    missing = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / LOCK), folder / HOLDER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(_taken(folder, holder)) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        say(f"{folder} cannot be locked ({error}): train in it from one process only")
    try:
        write_whole(holder, json.dumps(_this_process()) + "\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            holder.unlink(missing_ok=True)
            if {path.name for path in folder.iterdir()} <= {LOCK}:
                (folder / LOCK).unlink(missing_ok=True)
                for path in missing:
                    path.rmdir()
        lock.release()


def _this_process() -> dict[str, str | int]:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    return {"host": socket.gethostname(), "process": os.getpid(), "since": since}


def _taken(folder: pathlib.Path, holder: pathlib.Path) -> str:
    try:
        found = json.loads(holder.read_bytes())
        who = f"process {found['process']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        who = "another process"
    return f"{folder} is in use: {who}, trains in it; wait for it, or choose another --workdir"
