"""Writing results: a failure to write or draw never loses computed results."""

import os
import pathlib
import shutil
import uuid
from collections.abc import Callable
from typing import Any

from jaxrobust.files import beside, unwritable
from jaxrobust.processes import from_first, is_first
from jaxrobust.reasons import no_room, one_line


class Keeper:
    """Keeps results in a folder.

    If the folder is not writable (missing permissions, a full disk), this is reported once at the
    start, and the work continues without the folder. A row that cannot be written later is an
    error, but only at the end, in `close`. A picture that cannot be drawn is a warning.

    Args:
      folder: an existing one.
      say: called with each warning.

    Attributes:
      usable: whether the folder is writable.
      error: the error of the first row that could not be written, or `None`.
    """

    def __init__(self, folder: pathlib.Path, *, say: Callable[[str], None]) -> None:
        self.folder, self._say, self._said = folder, say, set[str]()
        self.error: OSError | None = None
        problem = from_first(lambda: unwritable(folder))
        self.usable = problem is None
        if problem is not None and is_first():
            say(
                f"warning: nothing can be written to {folder} ({problem}): results are only printed"
            )

    def write(self, call: Callable[..., Any], *arguments: Any) -> bool:
        """Writes rows or reports, in the first process.

        Args:
          call: writes.
          *arguments: arguments of the call.

        Returns:
          Whether they were written.
        """
        if not self.usable or not is_first():
            return False
        try:
            call(*arguments)
        except OSError as error:
            self.error = self.error or error
            return False
        return True

    def draw(
        self,
        path: pathlib.Path,
        draw: Callable[[pathlib.Path, Any], Any],
        *,
        of: Callable[[], Any] = lambda: None,
    ) -> bool:
        """Draws a picture; one that fails leaves an earlier file alone.

        Args:
          path: the PNG.
          draw: `(path, content)`, called in the first process.
          of: returns the content; called in all processes, which may have to cooperate.

        Returns:
          Whether it was drawn.
        """
        if not self.usable:
            return False
        try:
            content = of()
            if not is_first():
                return False
            with beside(path) as partial:
                draw(partial, content)
        except Exception as error:  # a picture is never worth more than the numbers
            self.warn(f"warning: {self._reason(path, error)}")
            return False
        return True

    def draw_all(
        self, draw: Callable[[pathlib.Path], list[pathlib.Path]], *, what: str
    ) -> list[pathlib.Path]:
        """Draws the pictures of an evaluator in the first process, all of them or none.

        Args:
          draw: writes PNGs into the folder that it is given, and returns their paths.
          what: names them in a warning.

        Returns:
          Their paths.
        """
        if not self.usable or not is_first():
            return []
        partial = self.folder / f".{uuid.uuid4().hex[:8]}"
        try:
            partial.mkdir()
            found = [(path, self.folder / path.name) for path in draw(partial)]
            for path, place in found:
                os.replace(path, place)
        except Exception as error:  # a picture is never worth more than the numbers
            self.warn(f"warning: {self._reason(pathlib.Path(f'figure of {what}'), error)}")
            return []
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return [place for _, place in found]

    def warn(self, line: str) -> None:
        """Prints a line, but never twice."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def close(self) -> None:
        """Ends the command with the error of the first row that could not be written.

        Raises:
          OSError: that error.
        """
        if self.error is not None:
            raise self.error

    def _reason(self, path: pathlib.Path, error: Exception) -> str:
        full = no_room(error, path)
        if full is not None:
            return f"{path.name} is not drawn: {full}"
        text = one_line(error)
        missing = "need matplotlib" in text  # then no picture of this command is
        return f"no pictures: {text}" if missing else f"{path.name} is not drawn: {text}"
