"""The members of a trade-off, as `results.json` holds them: their rows, numbers and columns."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrobust.evaluation import Number, Row, numbers_of, row_of, summary

# By member: `objective`, `runs` (one for each seed, with `experiment`, `training` and `rows`) and,
# if there was one, the `failure`.
Members = dict[str, dict[str, Any]]


def rows_of(member: Mapping[str, Any]) -> list[list[Row]]:
    """The rows of a member, by seed."""
    return [[row_of(row) for row in run["rows"]] for run in member["runs"]]


def numbers_of_member(member: Mapping[str, Any]) -> dict[str, Number]:
    """The numbers of a member by column, over its seeds; none without a finished seed."""
    return summary(rows_of(member))


def numbers_on(runs: Sequence[Sequence[Row]], columns: Sequence[str]) -> list[list[Number]] | None:
    """The numbers of several columns by seed, of the same images where one row has them all.

    Args:
      runs: by seed, the rows of the run.
      columns: of the table.

    Returns:
      For each seed the numbers in the order of the columns; `None` if a seed lacks one.
    """
    found = []
    for rows in runs:
        row = next((r for r in rows if all(r.number(c) for c in columns)), None)
        numbers = numbers_of(rows if row is None else [row])
        if not set(columns) <= numbers.keys():
            return None
        found.append([numbers[column] for column in columns])
    return found or None


def columns_of(members: Iterable[Mapping[str, Number]]) -> list[str]:
    """The columns of a table, including those that only some members have."""
    return list(dict.fromkeys(column for numbers in members for column in numbers))


def cell(number: Number | None) -> str:
    """A share in per cent, with half the width of its interval or range; empty if not measured."""
    if number is None:
        return ""
    return f"{100 * number.value:.1f} ±{50 * (number.high - number.low):.1f}"
