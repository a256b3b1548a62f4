"""The console for tables."""

import io
import sys
from collections.abc import Callable

from rich.console import Console, RenderableType


def table_console() -> Console:
    """The terminal at its own width; in a file or a log, tables are not cut."""
    return Console(width=None if sys.stdout.isatty() else 200)


def say_table(table: RenderableType, say: Callable[[str], None]) -> None:
    """Prints a table through `say`, like every other line."""
    width = table_console().width
    console = Console(file=io.StringIO(), width=width, force_terminal=sys.stdout.isatty())
    console.print(table)
    say(console.file.getvalue().rstrip("\n"))  # type: ignore[attr-defined]
