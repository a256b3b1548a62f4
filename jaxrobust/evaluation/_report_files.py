"""Reports as files: a JSON file with the numbers, the text, and an archive of the arrays."""

import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._intervals import Accuracy
from jaxrobust.evaluation._results import write_json
from jaxrobust.files import parse_json, replace_text, replacing
from jaxrobust.inputs import InputError
from jaxrobust.reasons import one_line

ARRAYS = "adversarial.npz"
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile)


class _Evaluated(Protocol):
    @property
    def clean_accuracy(self) -> Accuracy: ...


R = TypeVar("R", bound=_Evaluated)


def write_report(
    folder: str | os.PathLike[str],
    name: str,
    told: dict[str, Any],
    text: str,
    arrays: Mapping[str, Any] | None,
) -> list[pathlib.Path]:
    """Writes `NAME.json`, `NAME.txt` and, with arrays, `adversarial.npz`; returns their paths."""
    folder = pathlib.Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.json", folder / f"{name}.txt"]
    write_json(paths[0], told)
    replace_text(paths[1], text + "\n")
    if arrays is not None:
        paths.append(folder / ARRAYS)
        with replacing(paths[2]) as file:
            np.savez_compressed(file, **arrays)
    return paths


def read_report(
    folder: str | os.PathLike[str],
    name: str,
    kind: str,
    build: Callable[[dict[str, Any], Mapping[str, np.ndarray]], R],
) -> R:
    """Reads what `write_report` wrote.

    Args:
      folder: of the files.
      name: of the files.
      kind: the class of the report, for messages.
      build: makes the report of the JSON and the arrays; a `KeyError` if anything is missing.

    Returns:
      The report.

    Raises:
      InputError: if a file is missing or damaged, or the two come from different evaluations.
    """
    if not isinstance(folder, str | os.PathLike):
        raise InputError(f"folder must be a path, got {folder!r:.80}")
    folder = pathlib.Path(folder).expanduser()
    path = folder / f"{name}.json"
    for needed, remedy in ((path, ""), (folder / ARRAYS, "; save with images=True")):
        if not needed.is_file():
            raise InputError(f"folder must hold a saved {kind}, {needed} is missing{remedy}")
    try:
        told = parse_json(path.read_text())
        # NumPy leaves a damaged file open that it has opened itself.
        with open(folder / ARRAYS, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = build(told, dict(archive))
        same = found.clean_accuracy.correct == told["clean_accuracy"]["correct"]
    except DAMAGE as error:
        raise InputError(
            f"folder must hold a saved {kind}, {path} or {ARRAYS} is damaged or of another "
            f"version: {one_line(error)}"
        ) from None
    if not same:
        raise InputError(
            f"folder must hold one {kind}, {path} and {ARRAYS} come from two evaluations"
        )
    return found


def checks_of(told: dict[str, Any]) -> tuple[Check, ...]:
    """The checks of a saved report."""
    checks = [Check(**check) for check in told["checks"]]
    # JSON holds a value that is not finite as text.
    return tuple(check._replace(value=float(check.value)) for check in checks)
