"""Measurements as a table on the terminal and as JSON."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jaxrobust.bench import (
    attack_table,
    convolution_table,
    has_torch,
    loop_table,
    machine,
    many_table,
    peer_table,
    step_table,
    throughput,
    torch_step_table,
    torch_table,
    transform_table,
)
from jaxrobust.commands._console import table_console
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Experiment, to_dict


def bench_attack(
    path: pathlib.Path | None, *, peers: bool = False, **settings: Any
) -> list[dict[str, Any]]:
    """Times the attacks against the model's own passes; prints a table, writes JSON.

    Args:
      path: the JSON file, or `None`.
      peers: time PGD of this and of other libraries that are installed instead.
      **settings: of `bench.attack_table`; `queries` has no meaning for `peers`.

    Returns:
      The rows.
    """
    host = machine()
    if peers:
        settings.pop("queries", None)
        rows = [row._asdict() for row in peer_table(**settings)]
        shown = ("library", "version", "seconds", "ratio", "robust", "image_difference", "problem")
        return _shown("peers", "PGD of several libraries", rows, shown, path, settings, host)
    rows = [row._asdict() for row in attack_table(**settings)]
    columns = ("attack", "compile_seconds", "seconds", "passes_seconds", "ratio")
    return _shown("attack", "attacks against their own passes", rows, columns, path, settings, host)


def bench_convolutions(path: pathlib.Path | None, **settings: Any) -> list[dict[str, Any]]:
    """Times passes and gradient steps in loops with stock and with fast convolutions.

    Args:
      path: the JSON file, or `None`.
      **settings: of `bench.convolution_table`.

    Returns:
      The rows as dictionaries.
    """
    host = machine()
    rows = [row._asdict() | {"speedup": row.speedup} for row in convolution_table(**settings)]
    columns = ("name", "images", "gradient", "stock_ms", "fast_ms", "speedup")
    return _shown(
        "convolutions", "convolutions inside a loop, per step", rows, columns, path, settings, host
    )


def bench_many(path: pathlib.Path | None, **settings: Any) -> list[dict[str, Any]]:
    """Times the training of many runs one after the other and as one program.

    Args:
      path: the JSON file, or `None`.
      **settings: of `bench.many_table`.

    Returns:
      The rows as dictionaries.
    """
    host = machine()
    rows = [row._asdict() for row in many_table(**settings)]
    columns = ("form", "runs", "seconds", "ratio", "loss_difference", "accuracy_difference")
    return _shown("many", "TRADES, several beta and seeds", rows, columns, path, settings, host)


def bench_step(
    path: pathlib.Path | None,
    *,
    objectives: Sequence[str],
    model: str,
    width: int,
    batch_size: int,
    steps: int,
    repeats: int,
    torch_only: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """Times train steps against their passes, loops rolled against unrolled, and PyTorch.

    PyTorch is compared where it is installed and the network is `preact_resnet18`.

    Args:
      path: the JSON file, or `None`.
      objectives: names of objectives.
      model: network of `jaxrobust.models`.
      width: of the network.
      batch_size: images per step.
      steps: attack steps.
      repeats: of each measurement.
      torch_only: only the comparisons with PyTorch.

    Returns:
      The rows of each table.

    Raises:
      ValueError: if only PyTorch is to be compared and cannot be.
    """
    comparable = model == "preact_resnet18" and has_torch()
    if torch_only and not comparable:
        raise ValueError("--torch-only needs PyTorch (pip install torch) and preact_resnet18")
    host = machine()
    network = {"model": model, "width": width, "batch_size": batch_size, "repeats": repeats}
    tables = {} if torch_only else _own_tables(objectives, steps, network)
    if comparable:
        tables |= _torch_tables(width=width, batch_size=batch_size, steps=steps, repeats=repeats)
    if path is not None:
        settings = {**network, "steps": steps}
        found = {"bench": "step", "settings": settings, **tables, "machine": host}
        write_json(path, found | {"provenance": provenance()})
    return tables


def bench_throughput(
    experiments: Sequence[Experiment], path: pathlib.Path | None, **settings: Any
) -> list[dict[str, Any]]:
    """Times the train steps of experiments on the devices that are here.

    Args:
      experiments: to time.
      path: the JSON file, or `None`.
      **settings: of `bench.throughput`.

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
    configurations = {"experiments": [to_dict(each) for each in experiments]}
    return _shown("throughput", "training", rows, columns, path, settings | configurations, host)


def _own_tables(
    objectives: Sequence[str], steps: int, network: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    tables = {}
    rows = [row._asdict() for row in step_table(objectives, steps=steps, **network)]
    columns = ("objective", "seconds", "attack_seconds", "forward_seconds", "outer_seconds")
    tables["steps"] = _table(
        f"a train step against its passes: {network['model']}, width {network['width']}, "
        f"batch {network['batch_size']}, {steps} attack steps",
        rows,
        (*columns, "ratio", "compile_seconds", "temporary_mib"),
    )
    loops = [row._asdict() for row in loop_table(steps=(steps, 4 * steps), **network)]
    columns = ("form", "steps", "compile_seconds", "seconds", "loss")
    tables["loops"] = _table("the attack's loop, rolled and unrolled", loops, columns)
    moved = [row._asdict() for row in transform_table(steps=steps, **network)]
    tables["transforms"] = _table(
        "a step of PGD-AT with random rotations and shifts",
        moved,
        ("method", "seconds", "plain_seconds", "share"),
    )
    return tables


def _torch_tables(*, steps: int, **network: int) -> dict[str, list[dict[str, Any]]]:
    beside = [row._asdict() for row in torch_table(**network)]
    columns = ("program", "width", "seconds", "torch_seconds", "ratio", "difference")
    whole = [row._asdict() for row in torch_step_table(steps=steps, **network)]
    shown = ("form", "seconds", "ratio", "compile_seconds", "loss_difference", "problem")
    return {
        "torch": _table("beside PyTorch, channels_last", beside, columns),
        "torch_step": _table("the step of TRADES beside PyTorch", whole, shown),
    }


def _shown(
    bench: str,
    title: str,
    rows: list[dict[str, Any]],
    columns: Sequence[str],
    path: pathlib.Path | None,
    settings: dict[str, Any],
    host: dict[str, Any],
) -> list[dict[str, Any]]:
    _table(title, rows, columns)
    if path is not None:
        found = {"bench": bench, "settings": settings, "rows": rows}
        write_json(path, found | {"machine": host, "provenance": provenance()})
    return rows


def _table(title: str, rows: list[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    table = Table(title=title, title_justify="left")
    for column in columns:
        number = isinstance(rows[0][column], float)
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        values = (row[column] for column in columns)
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values))
    table_console().print(table)
    return rows
