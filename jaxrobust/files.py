"""Files that survive crashes: whole or absent, lines whole or not there, strict JSON."""

import contextlib
import errno
import json
import math
import os
import pathlib
import tempfile
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO


@contextlib.contextmanager
def beside(path: os.PathLike[str]) -> Iterator[pathlib.Path]:
    """The path of a temporary file, which is renamed to `path` at the end.

    A device or a pipe, such as `/dev/null`, is written to instead of being replaced.

    Args:
      path: the name that it gets; after an error there is what was there before.

    Returns:
      A context manager of the temporary path, with the ending of `path`.
    """
    path = pathlib.Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):
        with tempfile.TemporaryDirectory() as folder:
            yield pathlib.Path(folder, path.name)
            path.write_bytes(pathlib.Path(folder, path.name).read_bytes())
        return
    # Each process has a name of its own: several may write the same file at the same time.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


@contextlib.contextmanager
def replacing(path: os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file under another name, which is forced to the disk and renamed once it is written.

    Args:
      path: the name that it gets; after an error there is what was there before.

    Returns:
      A context manager of the open file.
    """
    with beside(path) as temporary, open(temporary, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())  # a rename may reach the disk before the content


def unwritable(folder: os.PathLike[str]) -> str | None:
    """Why nothing can be written into a folder; tried, because permissions do not say all.

    Args:
      folder: an existing one.

    Returns:
      The reason, such as "permission denied", or `None`.
    """
    probe = pathlib.Path(folder, f".probe_{uuid.uuid4().hex[:8]}")
    try:
        probe.write_bytes(bytes(4096))
    except OSError as error:
        return (error.strerror or str(error)).lower()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def replace_text(path: os.PathLike[str], text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one."""
    with replacing(path) as file:
        file.write(text.encode())


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


def check_entries(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses a zip file whose entries claim more bytes than the file has.

    Python takes memory for what an entry claims before it reads.

    Args:
      archive: the file.
      size: its bytes.

    Raises:
      ValueError: if an entry does.
    """
    for entry in archive.infolist():
        if entry.compress_size > size:
            raise ValueError(f"{entry.filename} claims {entry.compress_size} of {size} bytes")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, which anybody may have written.

    Args:
      text: the text, or its bytes.

    Returns:
      Plain types.

    Raises:
      ValueError: if it is no JSON, no text, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON, which has neither NaN nor infinities: they become the strings of `float`."""
    return json.dumps(_strict(value), indent=indent, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value
