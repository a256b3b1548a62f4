"""What every report has: one line, a page for notebooks, a table of points, the lines on checks."""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrobust.evaluation._checks import Check


def short_repr(result: object, title: str) -> str:
    """One line: the class, and the evaluation and its result in a few words."""
    return f"<{type(result).__name__}: {title}>"


def html_of(text: str) -> str:
    """A text as notebooks show it."""
    return f"<pre>{html.escape(text)}</pre>"


def dataframe_of(columns: Mapping[str, np.ndarray]) -> Any:
    """A pandas DataFrame of columns `[n]`; a `ValueError` if pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise ValueError("to_dataframe needs pandas: python -m pip install pandas") from None
    return pandas.DataFrame(dict(columns))


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
    passed = f"{len(checks) - len(warnings)} of {len(checks)} checks of the evaluation passed"
    yield f"{passed}; {seconds:.1f} s in total"
