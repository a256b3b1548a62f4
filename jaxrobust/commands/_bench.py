"""Measurements as a table on the terminal and as JSON."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jaxrobust.bench import attack_table, machine, many_table, step_table, throughput
from jaxrobust.commands._console import table_console
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Experiment, to_dict

Rows = list[dict[str, Any]]


def bench_attack(path: pathlib.Path | None, **settings: Any) -> Rows:
    """Times the attacks against the model's own passes; prints a table, writes JSON.

    Args:
      path: the JSON file, or `None`.
      **settings: settings of `bench.attack_table`.

    Returns:
      The rows as dictionaries.
    """
    host = machine()
    rows = [row._asdict() for row in attack_table(**settings)]
    columns = ("attack", "compile_seconds", "seconds", "passes_seconds", "ratio")
    show_rows("attacks against their own passes", rows, columns)
    keep_rows(path, "attack", settings, host, rows=rows)
    return rows


def bench_many(path: pathlib.Path | None, **settings: Any) -> Rows:
    """Times the training of many runs one after the other and as one program.

    Args:
      path: the JSON file, or `None`.
      **settings: settings of `bench.many_table`.

    Returns:
      The rows as dictionaries.
    """
    host = machine()
    rows = [row._asdict() for row in many_table(**settings)]
    columns = ("form", "runs", "seconds", "ratio", "loss_difference", "accuracy_difference")
    show_rows("TRADES, several beta and seeds", rows, columns)
    keep_rows(path, "many", settings, host, rows=rows)
    return rows


def bench_step(path: pathlib.Path | None, *, objectives: Sequence[str], **settings: Any) -> Rows:
    """Times train steps and, for comparison, their forward and backward passes.

    Args:
      path: the JSON file, or `None`.
      objectives: names of objectives.
      **settings: settings of `bench.step_table`.

    Returns:
      The rows as dictionaries.

    Raises:
      ValueError: if an objective or network is unknown.
    """
    host = machine()
    rows = [row._asdict() for row in step_table(objectives, **settings)]
    parts = ("attack_seconds", "forward_seconds", "outer_seconds")
    columns = ("objective", "seconds", *parts, "ratio", "compile_seconds", "temporary_mib")
    title = "a train step against its passes: {model}, width {width}, batch {batch_size}, "
    show_rows((title + "{steps} attack steps").format(**settings), rows, columns)
    keep_rows(path, "step", {"objectives": list(objectives), **settings}, host, rows=rows)
    return rows


def bench_throughput(
    experiments: Sequence[Experiment], path: pathlib.Path | None, **settings: Any
) -> Rows:
    """Times the train steps of experiments on the available devices.

    Args:
      experiments: the experiments to time.
      path: the JSON file, or `None`.
      **settings: settings of `bench.throughput`.

    Returns:
      The rows as dictionaries.

    Raises:
      ValueError: if a batch does not split over the devices, or data cannot be read.
      FloatingPointError: if a loss is not finite.
    """
    host = machine()
    say = table_console().print
    rows = [throughput(each, say=say, **settings)._asdict() for each in experiments]
    rates = ("images_per_second", "flops_per_second", "peak_flops_per_second", "share")
    columns = ("experiment", "device", "batch_size", "step_seconds", *rates)
    show_rows("training", rows, columns)
    configurations = {"experiments": [to_dict(each) for each in experiments]}
    keep_rows(path, "throughput", settings | configurations, host, rows=rows)
    return rows


def show_rows(title: str, rows: Rows, columns: Sequence[str]) -> None:
    """Prints rows as a table.

    Args:
      title: above the table.
      rows: the rows, at least one.
      columns: the names of the values that are shown, in their order.
    """
    table = Table(title=title, title_justify="left")
    for column in columns:
        number = isinstance(rows[0][column], float)
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        values = (row[column] for column in columns)
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    table_console().print(table)


def keep_rows(
    path: pathlib.Path | None,
    bench: str,
    settings: dict[str, Any],
    host: dict[str, Any],
    **found: Any,
) -> None:
    """Writes the results of a benchmark as JSON, with its settings and the machine.

    Args:
      path: the file; with `None` nothing is written.
      bench: the name of the benchmark.
      settings: its settings.
      host: the result of `bench.machine` before the measurement.
      **found: rows by the name of their table.
    """
    if path is not None:
        head = {"bench": bench, "settings": settings, **found}
        write_json(path, head | {"machine": host, "provenance": provenance()})
