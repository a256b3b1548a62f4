"""JSON lines: one row of results a line, which survives crashes, full disks and flipped bits."""

import re
import zlib
from collections.abc import Iterable
from typing import Any

from jaxrobust.files import parse_json, to_json
from jaxrobust.storage import Folder, append, run_folder, write_whole

# The last entry of a row: the CRC-32 of the others as they are written. A flipped bit in a number
# is still JSON.
CHECKED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)


def read_rows(path: Folder) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; lines that a crash, a disk or a full one damaged are left out.

    Args:
      path: the `.jsonl` file. Rows with a checksum, as `append_row` writes them, must agree with
        it; rows without one are taken as they are.

    Returns:
      One dictionary per undamaged line, without its checksum.

    Raises:
      OSError: if the file cannot be read.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxrobust.rows import read_rows
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "metrics.jsonl")
      ...     _ = path.write_text('{"step": 1}\\n{"step": 2, "lo\\n{"step": 3}\\n')
      ...     read_rows(path)
      [{'step': 1}, {'step': 3}]
    """
    rows = []
    for line in run_folder(path).read_bytes().split(b"\n"):
        found = CHECKED.fullmatch(line)
        if found is not None:
            line = found[1] + b"}"
            if zlib.crc32(line) != int(found[2], 16):
                continue
        try:
            row = parse_json(line)
        except ValueError:  # no JSON, or no text
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _line(row: dict[str, Any]) -> str:
    """A row as JSON with its checksum."""
    text = to_json(row)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}' if row else text


def append_row(path: Folder, row: dict[str, Any]) -> None:
    """Adds one row to a file and forces it to the disk.

    A last line that a crash cut off stays as it is; the row starts a new line.

    Args:
      path: the `.jsonl` file; on a disk it is made if it does not exist.
      row: plain JSON types. Numbers that JSON does not have become "nan", "inf" and "-inf".

    Returns:
      None. The file has one more row, whose last entry is its checksum, `crc32`.

    Raises:
      OSError: if the row does not fit on the disk.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxrobust.rows import append_row
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "results.jsonl")
      ...     append_row(path, {"clean": 0.9, "radius": float("inf")})
      ...     path.read_text()
      '{"clean": 0.9, "radius": "inf", "crc32": "bd487a15"}\\n'
    """
    append(run_folder(path), _line(row))


def write_rows(path: Folder, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a file of rows so that a reader sees the old one or the new one.

    Args:
      path: the `.jsonl` file.
      rows: plain JSON types, as for `append_row`.

    Returns:
      None. The file is written.

    Raises:
      OSError: if the file does not fit on the disk.
    """
    write_whole(run_folder(path), "".join(_line(row) + "\n" for row in rows))
