"""Measurements as a table on the terminal and as JSON."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrobust.bench import attack_table, convolution_table
from jaxrobust.evaluation import provenance, write_json


def bench_attack(path: pathlib.Path | None, **settings: Any) -> list[dict[str, Any]]:
    """Times the attacks against the model's own passes; prints a table, writes JSON.

    Args:
      path: the JSON file, or `None`.
      **settings: of `bench.attack_table`.

    Returns:
      The rows as dictionaries.
    """
    rows = [row._asdict() for row in attack_table(**settings)]
    columns = ("attack", "compile_seconds", "seconds", "passes_seconds", "ratio")
    return _shown("attacks against the model's own passes", rows, columns, path, settings)


def bench_convolutions(path: pathlib.Path | None, **settings: Any) -> list[dict[str, Any]]:
    """Times gradient steps in loops with stock and with fast convolutions.

    Args:
      path: the JSON file, or `None`.
      **settings: of `bench.convolution_table`.

    Returns:
      The rows as dictionaries.
    """
    rows = [row._asdict() | {"speedup": row.speedup} for row in convolution_table(**settings)]
    columns = ("name", "images", "gradient", "stock_ms", "fast_ms", "speedup")
    return _shown("convolutions inside a loop, per step", rows, columns, path, settings)


def _shown(
    title: str,
    rows: list[dict[str, Any]],
    columns: Sequence[str],
    path: pathlib.Path | None,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    table = Table(title=title, title_justify="left")
    for column in columns:
        number = isinstance(rows[0][column], float)
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        values = (row[column] for column in columns)
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    Console().print(table)
    if path is not None:
        write_json(path, {"settings": settings, "rows": rows, "provenance": provenance()})
    return rows
