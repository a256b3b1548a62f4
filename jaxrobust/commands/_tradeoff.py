"""Every member of a trade-off trained, attacked and drawn in one report."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.table import Table

from jaxrobust.commands._compile_time import CompileTime
from jaxrobust.commands._console import table_console
from jaxrobust.commands._evaluate import earlier_row, evaluate_run, threat_text
from jaxrobust.commands._html import write_report
from jaxrobust.commands._judge import Judge, seconds_of
from jaxrobust.commands._summary import summary
from jaxrobust.commands._tradeoff_figures import bars, draw_figures
from jaxrobust.commands._tradeoff_runs import PlannedRun, planned_runs
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Evaluation, Tradeoff, to_dict
from jaxrobust.training import (
    Interrupted,
    alike,
    local_folder,
    read_rows,
    train,
    train_many,
)

Plan = dict[str, list[PlannedRun]]


def run_tradeoff(
    tradeoff: Tradeoff,
    workdir: pathlib.Path,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains and attacks what is not finished yet, then writes the figures, table and report.

    Members live in `members/` of the folder, one folder per seed; one that was interrupted goes on
    where it stopped, one that is finished is not done again, nor is any of its evaluations, and
    where one fails the others go on: table, figures and `results.json` say that it did.

    Args:
      tradeoff: the members.
      workdir: the folder of the report, `report.html`, its figures and the rows, `results.json`.
      quiet: no progress bars.
      say: where lines for the user go.

    Returns:
      What `results.json` holds: by member its `runs` (a row per seed), its `figures` (mean, low
      and high of each column) and, if there was one, its `failure`.

    Raises:
      ValueError: if a run that is to be taken is not there, not finished or not of this task, or
        the folder is in a bucket.
    """
    started, compile_time = time.perf_counter(), CompileTime()
    workdir = local_folder(workdir)
    plan = planned_runs(tradeoff, workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    members: dict[str, dict[str, Any]] = {}
    with compile_time:
        _train_together(plan, quiet=quiet, say=say)
        for name, runs in plan.items():
            members[name] = _member(tradeoff, name, runs, members, quiet=quiet, say=say)
            _write(workdir, tradeoff, members, {})
    seconds = {"total": round(time.perf_counter() - started, 2), **compile_time.seconds()}
    results = _write(workdir, tradeoff, members, seconds)
    drawn = draw_figures(workdir, tradeoff, members, attack=_attack_text(tradeoff, plan))
    report = write_report(
        workdir,
        results,
        figures=drawn,
        examples=[(runs[0].folder / "adversarial.png", name) for name, runs in plan.items()],
    )
    _print_table(tradeoff, members, threat_text(next(iter(plan.values()))[0].experiment))
    say(
        f"{seconds['total']:.1f} s in all, of them {seconds['tracing']:.1f} s tracing and "
        f"{seconds['compilation']:.1f} s compilation"
    )
    say(f"figures: {', '.join(str(figure.path) for figure in drawn)}")
    say(f"report: {report}   rows: {workdir / 'results.json'}")
    return results


def _train_together(plan: Plan, *, quiet: bool, say: Callable[[str], None]) -> None:
    """Trains the runs that are not begun and differ in numbers only as one program each.

    What fails here, or was interrupted, is left to be continued, or to fail, alone.
    """
    missing = [
        (run.experiment, run.folder)
        for runs in plan.values()
        for run in runs
        if not run.taken and not run.bases and not (run.folder / "config.json").exists()
    ]
    while missing and jax.process_count() == 1:
        first = missing[0][0]
        group = [pair for pair in missing if alike(first, pair[0])]
        missing = [pair for pair in missing if pair not in group]
        if len(group) == 1:
            continue
        say(
            f"{len(group)} runs in one program: {', '.join(f'{r.name} {r.seed}' for r, _ in group)}"
        )
        try:
            train_many(*zip(*group, strict=True), quiet=quiet, say=say)
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:  # alone each of them says what is wrong with it
            say(f"not in one program: {type(error).__name__}: {str(error)[:200]}")


def _member(
    tradeoff: Tradeoff,
    name: str,
    runs: list[PlannedRun],
    earlier: dict[str, dict[str, Any]],
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All seeds of one member; what fails is told and kept in the results."""
    found: dict[str, Any] = {"objective": to_dict(runs[0].experiment)["objective"], "runs": []}
    evaluation = (tradeoff.members or [runs[0].experiment])[0].evaluation
    for run in runs:
        try:
            for base in run.bases:
                if "failure" in earlier[base]:
                    raise ValueError(f"it is made of the member {base!r}, which failed")
            found["runs"].append(_row(tradeoff, run, name, evaluation, quiet=quiet, say=say))
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:  # one member that cannot be trained must not cost the others
            found["failure"] = f"{type(error).__name__}: {error}"
            say(f"{name} failed: {found['failure']}")
    found["figures"] = {column: f._asdict() for column, f in summary(found["runs"]).items()}
    return found


def _row(
    tradeoff: Tradeoff,
    run: PlannedRun,
    name: str,
    evaluation: Evaluation,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The row of one run: of earlier evaluations, or after training what is missing."""
    experiment, folder = run.experiment, run.folder
    if not run.taken:
        evaluation = experiment.evaluation
        there = (folder / "config.json").exists()
        train(experiment, folder, resume=there, quiet=quiet, say=say)
    row = earlier_row(folder, checkpoint="best", evaluation=evaluation)
    metrics = read_rows(folder / "metrics.jsonl")
    epochs = seconds_of(metrics, experiment.batch_size)
    seconds = round(sum(epochs), 2)
    known = row is not None
    if row is None:
        row = evaluate_run(folder, evaluation=evaluation, quiet=quiet, say=say)
    validated = [r for r in metrics if "validation_robust_accuracy" in r]
    row["training"] = {
        "seconds": seconds,
        "first_epoch_seconds": round(sum(epochs[:1]), 2),
        "folder": str(folder),
        **{
            key: [r[key] for r in validated]
            for key in ("epoch", "validation_accuracy", "validation_robust_accuracy")
        },
    }
    Judge(folder, evaluation=evaluation, checkpoint=row["checkpoint"], quiet=quiet).add(
        row, tradeoff
    )
    done = f"finished earlier, taken from {folder}" if known else f"{seconds:.1f} s of training"
    say(f"{name}, seed {experiment.seed}: {done}")
    return row


def _write(
    workdir: pathlib.Path, tradeoff: Tradeoff, members: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    results = {
        "name": tradeoff.name,
        "seeds": list(tradeoff.seeds),
        "autoattack": dict(tradeoff.autoattack),
        "members": members,
        "provenance": provenance(),
        "seconds": seconds,
    }
    write_json(workdir / "results.json", results)
    return results


def _attack_text(tradeoff: Tradeoff, plan: Plan) -> str:
    """The attack that robustness is told by where AutoAttack was not run."""
    first = next(iter(plan.values()))[0].experiment
    steps = (tradeoff.members or [first])[0].evaluation.steps
    return f"PGD-{steps} (CE and margin) (%)\n{threat_text(first)}"


def _print_table(tradeoff: Tradeoff, members: dict[str, Any], threat: str) -> None:
    shown = [member for member in members.values() if member["figures"]]
    columns = list(shown[0]["figures"]) if shown else []
    table = Table(
        title=f"{tradeoff.name}: accuracy in % (± half of {bars(members)}), {threat}",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, member in members.items():
        figures, cells = member["figures"], ["failed"] + [""] * (len(columns) - 1)
        if figures:
            found = [figures[column] for column in columns]
            cells = [f"{100 * f['value']:.1f} ±{50 * (f['high'] - f['low']):.1f}" for f in found]
            name += " (a seed failed)" if "failure" in member else ""
        table.add_row(name, *cells)
    table_console().print(table)
