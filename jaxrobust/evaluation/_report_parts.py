"""What every report has: one line, a page for notebooks, a table of points, the lines on checks."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust.evaluation._checks import Check


class Shown:
    """How a report is displayed; its class defines `text`, `_title` and `_points`."""

    def text(self) -> str:
        """The report as text."""
        raise NotImplementedError

    def _title(self) -> str:
        """The evaluation and its result in a few words."""
        raise NotImplementedError

    def _points(self) -> Mapping[str, np.ndarray]:
        """The columns of the table of points, `[n]` each."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return f"<{type(self).__name__}: {self._title()}>"

    def _repr_html_(self) -> str:
        """The report as notebooks show it."""
        return f"<pre>{html.escape(self.text())}</pre>"

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ValueError("to_dataframe needs pandas: python -m pip install pandas") from None
        return pandas.DataFrame(dict(self._points()))


def warning_lines(checks: Sequence[Check]) -> list[str]:
    """A warning for each failed check."""
    return [
        f"  warning: {check.name}: {check.message} ({check.value:.4g})"
        for check in checks
        if not check.passed
    ]


def check_lines(checks: Sequence[Check], seconds: float) -> Iterator[str]:
    """A warning for each failed check, then how many passed, and the time."""
    warnings = warning_lines(checks)
    yield from warnings
    yield f"{len(checks) - len(warnings)} of {len(checks)} checks passed, {seconds:.1f} s"
