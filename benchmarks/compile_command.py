"""Compile times in several forms: a table, JSON and a figure."""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from click import echo
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.compile_case import Case, network_name
from benchmarks.compile_figure import draw_compile_curves
from benchmarks.compile_table import (
    TPU_CASES,
    CompileRow,
    compile_table,
    curves,
    rows_as_json,
    variants,
)
from benchmarks.compile_worker import can_serialize
from jaxrobust.bench import check_compiler, machine
from jaxrobust.commands import NOTHING_RAN, keep_rows, show_rows
from jaxrobust.drawing import check_matplotlib
from jaxrobust.progress import progress_bar

COLUMNS = (
    ("trace s", "trace_seconds"),
    ("lower s", "lower_seconds"),
    ("compile s", "compile_seconds"),
    ("cached s", "warm_compile_seconds"),
    ("exported s", "exported_compile_seconds"),
    ("first run s", "first_seconds"),
    ("next runs s", "steady_seconds"),
    ("bound s", "bound_seconds"),
    ("instructions", "instructions"),
    ("temporary MiB", "temporary_bytes"),
)


def compile_programs(
    path: pathlib.Path | None,
    *,
    programs: Sequence[str],
    model: str,
    depth: int,
    width: int,
    batch_size: int,
    steps: int,
    eager_steps: int,
    repeats: int,
    figure: pathlib.Path | None,
    curve_steps: Sequence[int],
    curve_depths: Sequence[int],
    topology: str | None,
    limit_minutes: float,
    quiet: bool = False,
) -> None:
    """Measures compilation in fresh processes; prints tables, writes JSON and a figure.

    Args:
      path: the JSON file, or `None`.
      programs: some of `compile_case.PROGRAMS`.
      model: "wide_resnet" or "preact_resnet18".
      depth: of the WideResNet.
      width: of the network.
      batch_size: images.
      steps: of the attack.
      eager_steps: of the attack in the eager form.
      repeats: processes per case.
      figure: a PNG of the curves, or `None` for no curves.
      curve_steps: numbers of attack steps of the curves.
      curve_depths: depths of the curves.
      topology: a TPU slice that `TPU_CASES` are compiled for instead, or `None`.
      limit_minutes: for one process.
      quiet: no progress bar.

    Raises:
      ValueError: if a program, network or slice does not exist, or matplotlib is missing.
      TPUCompilerError: if libtpu is missing.
    """
    network = {"width": width, "batch_size": batch_size}
    chosen = [
        case
        for program in programs
        for case in variants(
            program, model=model, depth=depth, steps=steps, eager_steps=eager_steps, **network
        )
    ]
    drawn: list[Case] = []
    if figure is not None and topology is None:
        check_matplotlib()  # that it is missing is better known before the minutes of measurements
        drawn = curves(curve_steps, curve_depths, attack_steps=steps, **network)
    if topology is not None:
        check_compiler(topology)
        chosen = list(TPU_CASES)
    host = machine()  # before the benchmark is itself what keeps the machine busy
    limits = {"repeats": repeats, "limit_seconds": 60 * limit_minutes}
    again = [case for case in chosen if topology is None and case.steps == steps]
    everything = list(dict.fromkeys([*chosen, *drawn]))
    with _progress(quiet=quiet) as bar:
        task = bar.add_task("", total=repeats * (len(everything) + len(again)))
        begun = itertools.count()  # when a process begins, those before it are done
        table = compile_table(
            everything,
            again=again,
            topology=topology,
            advance=lambda case: bar.update(task, description=case, completed=next(begun)),
            **limits,  # type: ignore[arg-type]
        )
    rows = [row for row in table if row.case in chosen]
    curve = [row for row in table if row.case in drawn]
    where = f"compiled for {topology}; nothing ran" if topology else host["processor"]
    _show(f"compilation, {where}", rows)
    if drawn:
        _show("PGD over its steps and over the depth", curve)
    if topology is None and not can_serialize():
        echo("exported programs were not measured: pip install flatbuffers", err=True)
    found: dict[str, Any] = {
        "topology": topology,
        "rows": rows_as_json(rows),
        "curves": rows_as_json(curve),
    }
    found |= {"ran": False, "note": NOTHING_RAN} if topology else {}
    keep_rows(path, "compile", {**limits, "eager_steps": eager_steps}, host, **found)
    if drawn:  # last: a picture that fails must not cost the measurements
        draw_compile_curves(
            figure,  # type: ignore[arg-type]
            curve,
            title=f"PGD on a WideResNet of width {width}, batch {batch_size}: "
            f"{host['processor']}, {host['cores']} cores{', busy' if host['busy'] else ''};\n"
            f"median of {curve[0].repeats} processes, bars from lowest to highest",
        )


def _show(title: str, rows: Sequence[CompileRow]) -> None:
    shown = [(head, name) for head, name in COLUMNS if any(name in row.figures for row in rows)]
    table = []
    for row in rows:
        case = row.case._asdict()
        cells = {"network": network_name(case)}
        cells |= {name: str(case[name]) for name in ("program", "form", "steps")}
        cells |= {head: _cell(name, row.figures.get(name)) for head, name in shown}
        cells["difference"] = "-" if row.difference is None else f"{row.difference:.1g}"
        table.append(cells | {"problem": row.problem})
    columns = ("program", "form", "network", "steps", *(head for head, _ in shown))
    show_rows(title, table, (*columns, "difference", "problem"))


def _cell(name: str, spread: Any) -> str:
    if spread is None:
        return "-"
    if name == "instructions":
        return f"{spread.median:,.0f}"
    return f"{spread.median / (2**20 if name == 'temporary_bytes' else 1):.3g}"


def _progress(*, quiet: bool) -> Progress:
    """A progress bar over processes; silent where output is not a terminal."""
    return progress_bar(
        TextColumn("[bold]{task.description:<22}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        quiet=quiet,
    )
