"""Compile times in several forms: a table, JSON and a figure."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jaxrobust.bench import (
    TPU_CASES,
    Case,
    CompileRow,
    can_serialize,
    check_compiler,
    compile_table,
    curves,
    draw_compile_curves,
    machine,
    rows_as_json,
    variants,
)
from jaxrobust.commands._console import table_console
from jaxrobust.commands._plan import NOTHING_RAN
from jaxrobust.drawing import pyplot
from jaxrobust.evaluation import provenance, write_json

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


def bench_compile(
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
) -> dict[str, Any]:
    """Measures compilation in fresh processes; prints tables, writes JSON and a figure.

    Args:
      path: the JSON file, or `None`.
      programs: some of `bench.PROGRAMS`.
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
      topology: a TPU slice that `bench.TPU_CASES` are compiled for instead, or `None`.
      limit_minutes: for one process.
      quiet: no progress bar.

    Returns:
      What the JSON file holds.

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
        pyplot()  # that it is missing is better known before the minutes of measurements
        drawn = curves(curve_steps, curve_depths, attack_steps=steps, **network)
    if topology is not None:
        check_compiler(topology)
        chosen = list(TPU_CASES)
    host = machine()  # before the benchmark is itself what keeps the machine busy
    limits = {"repeats": repeats, "limit_seconds": 60 * limit_minutes}
    again = [case for case in chosen if topology is None and case.steps == steps]
    everything = list(dict.fromkeys([*chosen, *drawn]))
    with CaseBar(repeats * (len(everything) + len(again)), quiet=quiet) as bar:
        table = compile_table(
            everything,
            again=again,
            topology=topology,
            advance=bar.advance,
            **limits,  # type: ignore[arg-type]
        )
    rows = [row for row in table if row.case in chosen]
    curve = [row for row in table if row.case in drawn]
    where = f"compiled for {topology}; nothing ran" if topology else host["processor"]
    _print(f"compilation, {where}", rows)
    if drawn:
        _print("PGD over its steps and over the depth", curve)
    if topology is None and not can_serialize():
        Console(stderr=True).print("exported programs were not measured: pip install flatbuffers")
    found: dict[str, Any] = {"bench": "compile", "topology": topology}
    found |= {"settings": {**limits, "eager_steps": eager_steps}, "rows": rows_as_json(rows)}
    found |= {"curves": rows_as_json(curve), "machine": host, "provenance": provenance()}
    if topology:
        found |= {"ran": False, "note": NOTHING_RAN}
    if path is not None:
        write_json(path, found)
    if drawn:  # last: a picture that fails must not cost the measurements
        draw_compile_curves(
            figure,  # type: ignore[arg-type]
            curve,
            title=f"PGD on a WideResNet of width {width}, batch {batch_size}: "
            f"{host['processor']}, {host['cores']} cores{', busy' if host['busy'] else ''};\n"
            f"median of {curve[0].repeats} processes, bars from lowest to highest",
        )
    return found


def _print(title: str, rows: Sequence[CompileRow]) -> None:
    shown = [(head, name) for head, name in COLUMNS if any(name in row.figures for row in rows)]
    table = Table(title=title, title_justify="left")
    for head in ("program", "form", "network", "steps"):
        table.add_column(head, no_wrap=True)
    for head, _ in shown:
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("difference", justify="right")
    for row in rows:
        case = row.case
        names = (case.program, case.form, network_name(case._asdict()), str(case.steps))
        if row.problem:
            table.add_row(*names, row.problem)
            continue
        cells = [
            _cell(name, row.figures[name]) if name in row.figures else "-" for _, name in shown
        ]
        difference = "-" if row.difference is None else f"{row.difference:.1g}"
        table.add_row(*names, *cells, difference)
    table_console().print(table)


def _cell(name: str, spread: Any) -> str:
    if name == "instructions":
        return f"{spread.median:,.0f}"
    return f"{spread.median / (2**20 if name == 'temporary_bytes' else 1):.3g}"


def network_name(case: dict[str, Any]) -> str:
    """WRN-28-10, or PreActResNet-18 with its width."""
    if case["model"] == "wide_resnet":
        return f"WRN-{case['depth']}-{case['width']}"
    return f"PreActResNet-18, width {case['width']}"


class CaseBar:
    """A progress bar over processes; silent where output is not a terminal."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total)
        self._begun = 0

    def __enter__(self) -> "CaseBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def advance(self, case: str) -> None:
        """A process begins: those before it are done."""
        self._progress.update(self._task, description=case, completed=self._begun)
        self._begun += 1
