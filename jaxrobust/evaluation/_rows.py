"""Rows: the result of one evaluation of one run, as data for files and tables."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydantic

from jaxrobust.files import to_json
from jaxrobust.inputs import InputError

SCHEMA = 2  # since 2, rows have digests of what was evaluated
FORBID_EXTRA = pydantic.ConfigDict(extra="forbid")


@dataclasses.dataclass(frozen=True)
class Number:
    """A share in [0, 1] under the name of its column in tables.

    Args:
      column: the name of the quantity, with everything that it depends on. The same name in two
        rows means the same quantity.
      value: the share; over several seeds, their mean.
      low: lower end of the 95 % interval; over several seeds, the lowest of them.
      high: upper end of the interval; over several seeds, the highest of them.
      correct: the number of correct points, or `None`.
      total: the number of points, or `None`.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> number = evaluation.Number("clean", *evaluation.accuracy(np.arange(100) < 80))
      >>> number.column, number.correct, number.total
      ('clean', 80, 100)
    """

    __pydantic_config__ = FORBID_EXTRA

    column: str
    value: float
    low: float
    high: float
    correct: int | None = None
    total: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """The result of one evaluator on one run.

    An evaluator sets the first four fields. The code that keeps the row adds the others.

    Args:
      title: names the evaluation in the headings of tables and figures.
      numbers: for tables, in the order of their columns.
      detail: all other results, as plain JSON types: counts by class under "classes", failed checks
        under "checks", the threat in words under "threat".
      cost: the cost of the evaluation: "seconds", and the evaluator's own counts.
      kind: the evaluator's name.
      settings: the evaluator's fields, as plain JSON types.
      run: the run's name.
      task: the parts of the experiment that the numbers of a checkpoint depend on.
      checkpoint: `{"kind": "best" or "last", "step": ...}`.
      seed: the seed of the attacks' noise.
      evaluated: digests of the test "images" and "labels", and of the "checkpoint"; rows of schema
        1 have none.
      provenance: versions, devices and the git commit.
      schema: version of this format.
    """

    __pydantic_config__ = FORBID_EXTRA

    title: str
    numbers: tuple[Number, ...]
    detail: dict[str, Any] = dataclasses.field(default_factory=dict)
    cost: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    run: str = ""
    task: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    evaluated: dict[str, str] = dataclasses.field(default_factory=dict)
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    def number(self, column: str) -> Number | None:
        """The number of a column, or `None`."""
        return next((number for number in self.numbers if number.column == column), None)

    def of(self) -> dict[str, Any]:
        """The fields that two rows share if one repeats the measurement of the other."""
        names = ("kind", "settings", "task", "checkpoint", "seed", "evaluated")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON types."""
        return json.loads(to_json(dataclasses.asdict(self)))


_ROW = pydantic.TypeAdapter(Row)


def row_of(values: Any) -> Row:
    """The row that `Row.to_dict` wrote.

    Args:
      values: plain JSON types.

    Returns:
      The row.

    Raises:
      ValueError: if this is not a row, or was written by a newer version of the library.

    Example:
      >>> from jaxrobust import evaluation
      >>> row = evaluation.Row("nothing", ())
      >>> evaluation.row_of(row.to_dict()) == row
      True
    """
    schema = values.get("schema") if isinstance(values, Mapping) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(
            f"schema must be at most {SCHEMA}, got {schema}: a newer version of jaxrobust wrote "
            "this row"
        )
    try:
        return _ROW.validate_python(values)
    except pydantic.ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "row"
        raise InputError(f"{where} is no part of a row: {problem['msg']}") from None


def numbers_of(rows: Sequence[Row]) -> dict[str, Number]:
    """The numbers of one run by column.

    Args:
      rows: the rows of the run's evaluations. If several of them measured a quantity, the first
        number over the most points is used.

    Returns:
      The numbers, in the order of the rows.
    """
    found: dict[str, Number] = {}
    for number in (number for row in rows for number in row.numbers):
        known = found.get(number.column)
        if known is None or (number.total or 0) > (known.total or 0):
            found[number.column] = number
    return found


def over_seeds(numbers: Sequence[Number]) -> Number:
    """The numbers of several seeds in one: their mean and range.

    Args:
      numbers: numbers of one column, at least one.

    Returns:
      A single number unchanged; of several the mean, with the lowest and the highest value.
    """
    if len(numbers) == 1:
        return numbers[0]
    values = [number.value for number in numbers]
    return Number(numbers[0].column, float(np.mean(values)), min(values), max(values))


def summary(runs: Sequence[Sequence[Row]]) -> dict[str, Number]:
    """The numbers of a method by column, over all its seeds.

    Args:
      runs: by seed, the rows of the run.

    Returns:
      The columns that all seeds have.
    """
    found = [numbers_of(rows) for rows in runs]
    shared = [name for name in (found or [{}])[0] if all(name in each for each in found)]
    return {name: over_seeds([each[name] for each in found]) for name in shared}


def bars(seeds: int) -> str:
    """The meaning of a figure's error bars.

    Args:
      seeds: the number of seeds.

    Returns:
      Such as "range of 3 seeds".
    """
    return f"range of {seeds} seeds" if seeds > 1 else "95 % intervals"
