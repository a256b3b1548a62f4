"""Numbers and machines as the tables of measurements name them."""

import math
from typing import Any


def machine_name(results: dict[str, Any]) -> str:
    """The machine in words: `AMD EPYC, 2 cores, busy; jax 0.10.2`.

    Args:
      results: what a benchmark wrote, with `provenance` and, but for old files, `machine`.

    Returns:
      The text.
    """
    version = f"jax {results['provenance']['versions']['jax']}"
    host: Any = results.get("machine")
    if host is None:  # measured before the machine was recorded
        return f"{results['provenance']['devices']['platform']}; {version}"
    name = f"{host['processor']}, {host['cores']} cores{', busy' * host['busy']}; {version}"
    topology = results.get("topology")
    return f"for {topology}, compiled on {name}" if topology else name


def seconds_text(value: float | None) -> str:
    """Seconds with a unit that leaves three digits; `-` for none or NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{number_text(1e3 * value)} ms" if value < 1 else f"{number_text(value)} s"


def number_text(value: float) -> str:
    """A number with three digits, or whole from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
