"""JSON lines: one row of results a line, which survives crashes and full disks."""

import json
from collections.abc import Iterable
from typing import Any

from jaxrobust.files import to_json
from jaxrobust.storage import Folder, append, run_folder, write_whole


def read_rows(path: Folder) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; lines that a crash or a full disk damaged are left out.

    Args:
      path: the `.jsonl` file.

    Returns:
      One dictionary per undamaged line.

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
        try:
            row = json.loads(line)
        except ValueError:  # no JSON, or no text
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def append_row(path: Folder, row: dict[str, Any]) -> None:
    """Adds one row to a file and forces it to the disk.

    A last line that a crash cut off stays as it is; the row starts a new line.

    Args:
      path: the `.jsonl` file; on a disk it is made if it does not exist.
      row: plain JSON types. Numbers that JSON does not have become "nan", "inf" and "-inf".

    Returns:
      Nothing; the file has one more row.

    Raises:
      OSError: if the row does not fit on the disk.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxrobust.rows import append_row
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "results.jsonl")
      ...     append_row(path, {"clean": 0.9, "radius": float("inf")})
      ...     path.read_text()
      '{"clean": 0.9, "radius": "inf"}\\n'
    """
    append(run_folder(path), to_json(row))


def write_rows(path: Folder, rows: Iterable[dict[str, Any]]) -> None:
    """Writes a file of rows so that a reader sees the old one or the new one.

    Args:
      path: the `.jsonl` file.
      rows: plain JSON types, as for `append_row`.

    Returns:
      Nothing; the file is written.

    Raises:
      OSError: if the file does not fit on the disk.
    """
    write_whole(run_folder(path), "".join(to_json(row) + "\n" for row in rows))
