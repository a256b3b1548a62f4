"""What figures share: Matplotlib without a display, colours and markers."""

import logging
from typing import Any

# Okabe and Ito's palette, grey in the place of its yellow: distinguishable with every kind of
# colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#808080")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
DASHES = ("-", "--", ":")


def style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of a method by its place."""
    round_, place = divmod(number, len(COLOURS))
    return {
        "color": COLOURS[place],
        "marker": MARKERS[(place + round_) % len(MARKERS)],
        "linestyle": DASHES[round_ % len(DASHES)],
    }


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], **settings: Any
) -> tuple[Any, Any]:
    """A figure and its axes, without pyplot: drawing never changes or uses a notebook's backend.

    Args:
      rows: number of rows of axes.
      columns: number of columns.
      figsize: width and height in inches.
      **settings: of `Figure.subplots`, such as `sharex` and `squeeze`.

    Returns:
      The figure, to be saved by `savefig`, and its axes as `Figure.subplots` returns them.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **settings)


def check_matplotlib() -> None:
    """Checks that figures can be drawn.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    # Without a home it makes a folder of its own, and tells at length.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ValueError("figures need matplotlib: pip install 'jaxrobust[plots]'") from None
