"""What every report has: the lines on its checks, and its files."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._results import write_json
from jaxrobust.files import replace_text, replacing


class Written(Protocol):
    """A report that can be written to files."""

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON types."""

    def text(self) -> str:
        """The report as text."""


def check_lines(checks: Sequence[Check], seconds: float) -> Iterator[str]:
    """A warning for each failed check, then how many passed, and the time."""
    failed = [check for check in checks if not check.passed]
    for check in failed:
        yield f"  warning: {check.name}: {check.message} ({check.value:.4g})"
    yield f"{len(checks) - len(failed)} of {len(checks)} checks passed, {seconds:.1f} s"


def write_report(
    folder: str | pathlib.Path, name: str, report: Written, arrays: Mapping[str, Any] | None
) -> list[pathlib.Path]:
    """Writes `NAME.json`, `NAME.txt` and, with arrays, `adversarial.npz`.

    Args:
      folder: created if missing.
      name: the name of the files.
      report: the report.
      arrays: images and results by point, or `None`.

    Returns:
      The files that were written.
    """
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.txt"]
    write_json(paths[0], report.to_dict())
    replace_text(paths[1], report.text() + "\n")
    if arrays is not None:
        paths.append(folder / "adversarial.npz")
        with replacing(paths[2]) as file:
            np.savez_compressed(file, **arrays)
    return paths
