"""The folder of a run and its files, on a disk or in a Cloud Storage bucket."""

import importlib.util
import os
import pathlib
import re
from typing import TypeAlias

from etils import epath

from jaxrobust.files import append_line, replace_text

Folder: TypeAlias = str | pathlib.Path | epath.Path


def run_folder(workdir: Folder) -> epath.Path:
    """The folder as a path that reads and writes wherever it is.

    Args:
      workdir: a folder, or `gs://bucket/folder`.

    Returns:
      The path.

    Raises:
      ValueError: for any other kind of address, where what reads buckets is not installed, or for
        `~` where no home directory is known.
    """
    found = re.match(r"([a-z][a-z0-9]+):/+", os.fspath(workdir))
    if found is None:
        return epath.Path(_expanded(workdir))
    address = f"{found[1]}://{os.fspath(workdir)[found.end() :]}"  # pathlib drops a slash
    if found[1] != "gs":
        raise ValueError(f"workdir must be a folder or gs://bucket/folder, got {address}")
    if importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{address} needs gcsfs: pip install 'jaxrobust[tpu]'")
    return epath.Path(address)


def _expanded(workdir: Folder) -> pathlib.Path:
    """The path with a leading `~` replaced, which no shell does in `--workdir=~/runs`."""
    path = pathlib.Path(workdir)
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path}: no home directory is known for {path.parts[0]}; give an absolute path"
        ) from None


def in_bucket(path: epath.Path | pathlib.Path) -> bool:
    """Whether a path is an address."""
    return os.fspath(path).startswith("gs://")


def local_folder(workdir: Folder) -> pathlib.Path:
    """The folder, if it is on a disk.

    Args:
      workdir: a folder.

    Returns:
      The path.

    Raises:
      ValueError: if it is in a bucket.
    """
    folder = run_folder(workdir)
    if in_bucket(folder):
        raise ValueError(
            f"{folder} is in a bucket, where only training writes: give a folder; copy a run by "
            f"gcloud storage cp --recursive {folder} runs/"
        )
    return pathlib.Path(folder)


def check_folder(folder: epath.Path | pathlib.Path, *, name: str = "workdir") -> None:
    """Refuses a place where no folder can be made, because a file stands there.

    Args:
      folder: on a disk or in a bucket, which knows no folders.
      name: of the argument, for the message.

    Raises:
      ValueError: if it, or a folder that it is in, is a file.
    """
    if in_bucket(folder):
        return
    for path in (pathlib.Path(folder), *pathlib.Path(folder).parents):
        if path.is_file():
            raise ValueError(f"{name} must be a folder, but {path} is a file")


def write_whole(path: epath.Path | pathlib.Path, text: str) -> None:
    """Writes a file so that a reader sees the old one or the new one; in a bucket all are so."""
    if in_bucket(path):
        path.write_text(text)
    else:
        replace_text(path, text)


def append(path: epath.Path | pathlib.Path, line: str) -> None:
    """Adds a line to a file and closes it; objects of a bucket cannot grow and are written anew."""
    if in_bucket(path):
        path.write_text(path.read_text() + line + "\n")
    else:
        append_line(path, line)
