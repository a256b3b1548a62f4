"""Where tables are printed."""

import sys

from rich.console import Console


def table_console() -> Console:
    """The terminal as wide as it is; in a file, or a log, nothing needs to be cut."""
    return Console(width=None if sys.stdout.isatty() else 200)
