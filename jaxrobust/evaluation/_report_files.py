"""Reports as files: a JSON file with the numbers, the text, and an archive of the arrays."""

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._intervals import Accuracy
from jaxrobust.evaluation._report_parts import Shown
from jaxrobust.evaluation._results import write_json
from jaxrobust.files import replace_text, replacing
from jaxrobust.inputs import InputError
from jaxrobust.reasons import one_line

ARRAYS = "adversarial.npz"
DAMAGE = (KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile)


class Saved(Shown):
    """A report that is written to a folder and read back.

    Its class defines `FILE`, `to_dict`, `_arrays` and `_restored`.
    """

    FILE: ClassVar[str]  # the name of its files

    @property
    def clean_accuracy(self) -> Accuracy:
        """Accuracy on the clean images."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON types."""
        raise NotImplementedError

    def _arrays(self) -> Mapping[str, Any]:
        """The arrays of the archive."""
        raise NotImplementedError

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The report from `to_dict` and `_arrays`; anything missing is a `KeyError`."""
        raise NotImplementedError

    def _write(self, folder: str | os.PathLike[str], *, arrays: bool) -> list[pathlib.Path]:
        """Writes `FILE.json`, `FILE.txt` and, with arrays, `adversarial.npz`."""
        folder = pathlib.Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{self.FILE}.json", folder / f"{self.FILE}.txt"]
        write_json(paths[0], self.to_dict())
        replace_text(paths[1], self.text() + "\n")
        if arrays:
            paths.append(folder / ARRAYS)
            with replacing(paths[2]) as file:
                np.savez_compressed(file, **self._arrays())
        return paths

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads a report that `save` wrote with its images.

        Args:
          folder: the folder that `save` got.

        Returns:
          The report, complete; `seconds` is rounded to milliseconds.

        Raises:
          ValueError: if the folder does not hold such a report.
        """
        name = cls.__name__
        if not isinstance(folder, str | os.PathLike):
            raise InputError(f"folder must be a path, got {folder!r:.80}")
        folder = pathlib.Path(folder).expanduser()
        path = folder / f"{cls.FILE}.json"
        for needed, remedy in ((path, ""), (folder / ARRAYS, "; save with images=True")):
            if not needed.is_file():
                raise InputError(f"folder must hold a saved {name}, {needed} is missing{remedy}")
        try:
            told = json.loads(path.read_text())
            # NumPy leaves a damaged file open that it has opened itself.
            with open(folder / ARRAYS, "rb") as file, np.load(file, allow_pickle=False) as archive:
                found = cls._restored(told, dict(archive))
            same = found.clean_accuracy.correct == told["clean_accuracy"]["correct"]
        except DAMAGE as error:
            raise InputError(
                f"folder must hold a saved {name}, {path} or {ARRAYS} is damaged or of another "
                f"version: {one_line(error)}"
            ) from None
        if not same:
            raise InputError(
                f"folder must hold one {name}, {path} and {ARRAYS} are of two evaluations"
            )
        return found


def checks_of(told: dict[str, Any]) -> tuple[Check, ...]:
    """The checks of a saved report."""
    checks = [Check(**check) for check in told["checks"]]
    # JSON holds a value that is not finite as text.
    return tuple(check._replace(value=float(check.value)) for check in checks)
