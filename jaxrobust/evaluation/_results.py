"""Result rows and files: JSON that survives crashes, and where results come from."""

import contextlib
import errno
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "jaxrobust")


def provenance() -> dict[str, Any]:
    """Versions, devices and the git commit.

    Returns:
      Plain JSON types under `time`, `versions`, `devices` and `git_commit`.
    """
    devices = jax.devices()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "devices": {
            "count": len(devices),
            "kind": devices[0].device_kind,
            "platform": devices[0].platform,
            "processes": jax.process_count(),
        },
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the library's checkout, "-dirty" with local changes; None if installed."""
    folder = pathlib.Path(__file__).parent

    def git(*args: str) -> str:
        command = ["git", "-C", str(folder), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        tracked = git("ls-files", "--error-unmatch", __file__)
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if not tracked else commit + ("-dirty" if changes else "")


def append_row(path: pathlib.Path, row: dict[str, Any]) -> None:
    """Adds one JSON row to a file and forces it to the disk.

    A last line that a crash cut off stays as it is; the row starts a new line.

    Args:
      path: the `.jsonl` file.
      row: plain JSON types. Numbers that JSON does not have become "nan", "inf" and "-inf".

    Returns:
      Nothing; the file has one more row.

    Raises:
      OSError: if the row does not fit on the disk.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxrobust.evaluation import append_row
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "results.jsonl")
      ...     append_row(path, {"clean": 0.9, "radius": float("inf")})
      ...     path.read_text()
      '{"clean": 0.9, "radius": "inf"}\\n'
    """
    append_line(path, to_json(row))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically: a reader sees the old one or the new one.

    Args:
      path: the file.
      value: plain JSON types. Numbers that JSON does not have become "nan", "inf" and "-inf".

    Returns:
      Nothing; the file is written.

    Raises:
      OSError: if the file does not fit on the disk.
    """
    replace_text(path, to_json(value, indent=2) + "\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON, which has neither NaN nor infinities: they become the strings of `float`."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def append_line(path: os.PathLike[str], line: str) -> None:
    """Appends a line in one write, on a line of its own, and forces it to the disk."""
    with open(path, "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        cut = False
        if size:
            file.seek(size - 1)
            cut = file.read(1) != b"\n"
        content = b"\n" * cut + line.encode() + b"\n"
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, "the disk is full; the row was not written", str(path))
        os.fsync(file.fileno())


def replace_text(path: os.PathLike[str], text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one."""
    with replacing(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def replacing(path: os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file under another name, which is forced to the disk and renamed once it is written.

    Args:
      path: the name that it gets; after an error there is what was there before.

    Returns:
      A context manager of the open file.
    """
    temporary = f"{os.fspath(path)}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    os.replace(temporary, path)
