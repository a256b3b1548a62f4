"""Files of results, written atomically, and the provenance of results."""

import importlib.metadata
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax

from jaxrobust.files import replace_text, to_json

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


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file atomically: a reader sees the old one or the new one.

    Args:
      path: the file.
      value: plain JSON types. Numbers that JSON cannot represent become "nan", "inf" and "-inf".

    Returns:
      None.

    Raises:
      OSError: if the file cannot be written, for example because the disk is full.
    """
    replace_text(path, to_json(value, indent=2) + "\n")
