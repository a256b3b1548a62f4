"""Measurements as a table on the terminal and as JSON."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from jaxrobust.bench import (
    attack_table,
    convolution_table,
    loop_table,
    machine,
    many_table,
    peer_table,
    step_table,
    torch_step_table,
    torch_table,
    transform_table,
)
from jaxrobust.bench._torch import has_torch
from jaxrobust.commands._console import table_console
from jaxrobust.evaluation import provenance, write_json


def bench_attack(
    path: pathlib.Path | None, *, peers: bool = False, **settings: Any
) -> dict[str, list[dict[str, Any]]]:
    """Times the attacks against the model's own passes; prints tables, writes JSON.

    Args:
      path: the JSON file, or `None`.
      peers: also time PGD of other libraries that are installed, on the same network.
      **settings: of `bench.attack_table`.

    Returns:
      The rows of each table.
    """
    host = machine()
    rows = [row._asdict() for row in attack_table(**settings)]
    columns = ("attack", "compile_seconds", "seconds", "passes_seconds", "ratio")
    tables = {"rows": _table("attacks against the model's own passes", rows, columns)}
    if peers:
        shared = {name: settings[name] for name in settings if name != "queries"}
        beside = [row._asdict() for row in peer_table(**shared)]
        columns = (
            "library",
            "version",
            "seconds",
            "ratio",
            "robust",
            "image_difference",
            "problem",
        )
        tables["peers"] = _table("PGD beside other libraries", beside, columns)
    if path is not None:
        found = {"bench": "attack", "settings": settings, **tables, "machine": host}
        write_json(path, found | {"provenance": provenance()})
    return tables


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


def bench_many(path: pathlib.Path | None, **settings: Any) -> list[dict[str, Any]]:
    """Times the training of many runs one after the other and as one program.

    Args:
      path: the JSON file, or `None`.
      **settings: of `bench.many_table`.

    Returns:
      The rows as dictionaries.
    """
    rows = [row._asdict() for row in many_table(**settings)]
    columns = ("form", "runs", "seconds", "ratio", "loss_difference", "accuracy_difference")
    return _shown("TRADES on digits, several beta and seeds", rows, columns, path, settings)


def bench_step(
    path: pathlib.Path | None,
    *,
    objectives: Sequence[str],
    model: str,
    width: int,
    batch_size: int,
    steps: int,
    repeats: int,
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

    Returns:
      The rows of each table.
    """
    host = machine()
    network = {"model": model, "width": width, "batch_size": batch_size, "repeats": repeats}
    tables = {}
    rows = [row._asdict() for row in step_table(objectives, steps=steps, **network)]  # type: ignore[arg-type]
    columns = ("objective", "seconds", "attack_seconds", "forward_seconds", "outer_seconds")
    tables["steps"] = _table(
        f"a train step against its passes: {model}, width {width}, batch {batch_size}, "
        f"{steps} attack steps",
        rows,
        (*columns, "ratio", "compile_seconds", "temporary_mib"),
    )
    loops = [row._asdict() for row in loop_table(steps=(steps, 4 * steps), **network)]  # type: ignore[arg-type]
    columns = ("form", "steps", "compile_seconds", "seconds", "loss")
    tables["loops"] = _table("the attack's loop, rolled and unrolled", loops, columns)
    moved = [row._asdict() for row in transform_table(steps=steps, **network)]  # type: ignore[arg-type]
    tables["transforms"] = _table(
        "a step of PGD-AT with random rotations and shifts",
        moved,
        ("method", "seconds", "plain_seconds", "share"),
    )
    if model == "preact_resnet18" and has_torch():
        beside = torch_table(width=width, batch_size=batch_size, repeats=repeats)
        tables["torch"] = _table(
            "beside PyTorch, channels_last",
            [row._asdict() for row in beside],
            ("program", "width", "seconds", "torch_seconds", "ratio", "difference"),
        )
        whole = torch_step_table(width=width, batch_size=batch_size, steps=steps, repeats=repeats)
        tables["torch_step"] = _table(
            "the train step of TRADES beside PyTorch, channels_last",
            [row._asdict() for row in whole],
            ("form", "seconds", "ratio", "compile_seconds", "loss_difference", "problem"),
        )
    if path is not None:
        settings = {**network, "steps": steps}
        found = {"bench": "step", "settings": settings, **tables, "machine": host}
        write_json(path, found | {"provenance": provenance()})
    return tables


def _shown(
    title: str,
    rows: list[dict[str, Any]],
    columns: Sequence[str],
    path: pathlib.Path | None,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    _table(title, rows, columns)
    if path is not None:
        write_json(path, {"settings": settings, "rows": rows, "provenance": provenance()})
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
