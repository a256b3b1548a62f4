"""Progress of evaluations: a bar on a terminal, a line per finished attack in a log."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.progress import (
    BarColumn,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxrobust.processes import is_first
from jaxrobust.progress import progress_bar


class _Bar:
    """A transient bar on standard error; without two terminals also lines through `say`."""

    def __init__(
        self, *columns: ProgressColumn, quiet: bool, say: Callable[[str], None] | None
    ) -> None:
        silent = quiet or not is_first()
        self._progress = progress_bar(*columns, quiet=silent)
        logged = not (self._progress.console.is_terminal and sys.stdout.isatty())
        self._say = say if logged and not silent else None
        self._started = time.perf_counter()

    def __enter__(self) -> Any:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def _begin(self) -> None:
        self._started = time.perf_counter()

    def _finished(self, text: str) -> None:
        if self._say is not None:
            self._say(f"{text}, {time.perf_counter() - self._started:.1f} s")


class EvaluationBar(_Bar):
    """Progress over the attacks of `evaluate`.

    Args:
      name: of what is evaluated.
      total: number of images.
      quiet: neither bar nor lines.
      say: where the lines of a log go.
    """

    def __init__(
        self,
        name: str,
        total: int,
        *,
        quiet: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} images"),
            TimeRemainingColumn(),
        )
        super().__init__(*columns, quiet=quiet, say=say)
        self._name, self._total, self._attack, self._done = name, total, "", 0
        self._task = self._progress.add_task(name, total=total)

    def advance(self, attack: str, examples: int) -> None:
        """Moves on; a new attack starts the bar again."""
        if attack != self._attack:
            self._attack, self._done = attack, 0
            self._progress.reset(
                self._task, description=f"{self._name} {attack}", total=self._total
            )
        self._progress.advance(self._task, examples)
        self._done += examples
        if self._done >= self._total:
            self._finished(f"{self._name}: {attack} finished, {self._total} images")
            self._begin()


class AttackBar(_Bar):
    """Progress over the work items of AutoAttack.

    Args:
      quiet: neither bar nor lines.
      say: where the lines of a log go.
    """

    def __init__(self, *, quiet: bool = False, say: Callable[[str], None] | None = None) -> None:
        columns = (
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} points"),
            TimeElapsedColumn(),
        )
        super().__init__(*columns, quiet=quiet, say=say)
        self._finished_items: set[str] = set()
        self._task = self._progress.add_task("", total=1)

    def show(self, item: str, done: int, total: int) -> None:
        """Shows how many of the still robust points the item is through."""
        self._progress.update(self._task, description=item, completed=done, total=max(total, 1))
        if done == 0:
            self._begin()
        if done >= total and item not in self._finished_items:
            self._finished_items.add(item)
            self._finished(f"{item} finished, {total} points")
