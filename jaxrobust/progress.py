"""Progress bars on standard error."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn


def progress_bar(*columns: ProgressColumn, quiet: bool, transient: bool = True) -> Progress:
    """A progress bar that is shown on a terminal only.

    Args:
      *columns: of the bar.
      quiet: never show it.
      transient: whether it disappears at its end.

    Returns:
      The bar; its attribute `disable` says that it is not shown.
    """
    console = Console(stderr=True)
    hidden = quiet or not console.is_terminal
    return Progress(*columns, console=console, disable=hidden, transient=transient)
