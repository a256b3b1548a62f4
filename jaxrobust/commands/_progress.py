"""Progress of evaluations: a bar on a terminal, a line per finished attack in a log."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.progress import (
    BarColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxrobust.processes import is_first
from jaxrobust.progress import progress_bar


class EvaluationBar:
    """A transient bar on standard error; without two terminals, lines also go through `say`.

    Args:
      name: the name of the evaluated run.
      quiet: neither bar nor lines.
      say: called with each line of a log.
    """

    def __init__(
        self, name: str, *, quiet: bool = False, say: Callable[[str], None] | None = None
    ) -> None:
        silent = quiet or not is_first()
        self._progress = progress_bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} images"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            quiet=silent,
        )
        logged = not (self._progress.console.is_terminal and sys.stdout.isatty())
        self._say = say if logged and not silent else None
        self._name, self._what, self._done, self._finished = name, "", 0, False
        self._task = self._progress.add_task(name, total=1)
        self._started = time.perf_counter()

    def __enter__(self) -> Any:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Shows the number of finished examples; the name of the running part may change."""
        if what != self._what or done < self._done:
            self._finished = False
            if not done:
                self._started = time.perf_counter()
        self._what, self._done = what, done
        self._progress.update(
            self._task,
            description=f"{self._name} {what}",
            completed=done,
            total=max(total, 1),
        )
        if done >= total and not self._finished:
            self._finished = True
            seconds = time.perf_counter() - self._started
            self._started = time.perf_counter()
            if self._say is not None:
                self._say(f"{self._name}: {what} finished, {total} images, {seconds:.1f} s")
