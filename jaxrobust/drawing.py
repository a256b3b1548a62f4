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


def pyplot() -> Any:
    """Matplotlib without a display.

    Raises:
      ValueError: if it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("figures need matplotlib: pip install 'jaxrobust[plots]'") from None
    # Without a home it makes a folder of its own, and tells at length.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
