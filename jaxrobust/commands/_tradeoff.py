"""Every member of a trade-off trained, attacked and drawn in one figure."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxrobust.commands._compile_time import CompileTime
from jaxrobust.commands._evaluate import earlier_row, evaluate_run, threat_text
from jaxrobust.evaluation import Accuracy, Point, draw_tradeoff, provenance, write_json
from jaxrobust.experiment import Experiment, Tradeoff, to_dict
from jaxrobust.training import train


def run_tradeoff(
    tradeoff: Tradeoff,
    workdir: pathlib.Path,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains and attacks what is not finished yet, then writes the figure and the table.

    Members live in `members/` of the folder; one that was interrupted goes on where it
    stopped, one that is finished is not done again.

    Args:
      tradeoff: the members.
      workdir: the folder of the figure, `tradeoff.png`, and the rows, `results.json`.
      quiet: no progress bars.
      say: where lines for the user go.

    Returns:
      What `results.json` holds.
    """
    started, compile_time = time.perf_counter(), CompileTime()
    with compile_time:
        rows = {
            member.name: _member(member, workdir / "members" / member.name, quiet=quiet, say=say)
            for member in tradeoff.members
        }
    results: dict[str, Any] = {
        "name": tradeoff.name,
        "members": rows,
        "provenance": provenance(),
        "seconds": {
            "total": round(time.perf_counter() - started, 2),
            **compile_time.seconds(),
        },
    }
    write_json(workdir / "results.json", results)
    steps = tradeoff.members[0].evaluation.steps
    points = [
        Point(
            name,
            Accuracy(**row["clean_accuracy"]),
            Accuracy(**row["worst_case_accuracy"]),
        )
        for name, row in rows.items()
    ]
    draw_tradeoff(
        workdir / "tradeoff.png",
        points,
        title=f"{tradeoff.name}: accuracy against robustness (bars: 95 % intervals)",
        robust_label=f"accuracy under PGD-{steps} (CE and margin) (%)\n"
        f"{threat_text(tradeoff.members[0])}, image units",
    )
    _print_table(tradeoff, rows)
    seconds = results["seconds"]
    say(
        f"{seconds['total']:.1f} s in all, of them {seconds['tracing']:.1f} s tracing and "
        f"{seconds['compilation']:.1f} s compilation"
    )
    say(f"figure: {workdir / 'tradeoff.png'}   rows: {workdir / 'results.json'}")
    return results


def _member(
    member: Experiment, workdir: pathlib.Path, *, quiet: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """The member's row: of an earlier evaluation, or after training what is missing."""
    there = (workdir / "config.json").exists()
    trained = train(member, workdir, resume=there, quiet=quiet, say=say)
    row = earlier_row(workdir, checkpoint="best", evaluation=member.evaluation)
    if row is None:
        row = evaluate_run(workdir, quiet=quiet, say=say)
        say(f"{member.name}: trained and attacked in {trained.seconds:.1f} s of training")
    else:
        say(f"{member.name}: finished earlier, taken from {workdir}")
    return {"objective": to_dict(member)["objective"], **row}


def _print_table(tradeoff: Tradeoff, rows: dict[str, dict[str, Any]]) -> None:
    attacks = list(next(iter(rows.values()))["robust_accuracy"])
    member = tradeoff.members[0]
    table = Table(
        title=f"{tradeoff.name}: accuracy in % (± half the 95 % interval), {threat_text(member)}",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for column in ("clean", *(f"{a} ({member.evaluation.steps})" for a in attacks), "worst"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in rows.items():
        figures = [row["clean_accuracy"], *row["robust_accuracy"].values()]
        figures.append(row["worst_case_accuracy"])
        table.add_row(
            name,
            *(f"{100 * f['value']:.1f} ±{50 * (f['high'] - f['low']):.1f}" for f in figures),
        )
    Console().print(table)
