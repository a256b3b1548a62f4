"""Result rows: what was run, on what, and the figures."""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time
from typing import Any

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

    Args:
      path: the `.jsonl` file.
      row: plain JSON types.

    Returns:
      Nothing; the file has grown by a line.
    """
    line = json.dumps(row) + "\n"
    with path.open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically: a reader sees the old one or the new one.

    Args:
      path: the file.
      value: plain JSON types.

    Returns:
      Nothing; the file is written.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    os.replace(temporary, path)
