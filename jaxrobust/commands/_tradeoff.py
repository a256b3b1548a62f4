"""Every member of a trade-off trained, attacked and drawn in one report."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from rich.table import Table

from jaxrobust.commands._compile_time import CompileTime
from jaxrobust.commands._console import say_table
from jaxrobust.commands._evaluate import attacks_of, earlier_row, evaluate_run, threat_text
from jaxrobust.commands._html import write_report
from jaxrobust.commands._identity import checkpoint_of
from jaxrobust.commands._judge import Judge, seconds_of, worst_text
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._stopping import resumable
from jaxrobust.commands._summary import cell, columns_of, summary
from jaxrobust.commands._tradeoff_figures import bars, draw_figures
from jaxrobust.commands._tradeoff_runs import PlannedRun, epochs_done, level, planned_runs
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, to_dict
from jaxrobust.reasons import one_line
from jaxrobust.storage import local_folder
from jaxrobust.training import (
    FolderInUseError,
    Interrupted,
    alike,
    begun,
    read_rows,
    train,
    train_many,
)

Plan = dict[str, list[PlannedRun]]
# What is no failure of a member: it ends the whole command.
ENDS = (Interrupted, KeyboardInterrupt, FolderInUseError)


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
      quiet: no progress bars, and no lines about progress in a log.
      say: where lines for the user go.

    Returns:
      What `results.json` holds: by member its `runs` (a row per seed), its `figures` (mean, low
      and high of each column) and, if there was one, its `failure`.

    Raises:
      ValueError: if a run that is to be taken is not there, not finished or not of this task, or
        the folder is in a bucket.
      FolderInUseError: if another process trains or attacks one of the members (a ValueError).
      Interrupted: after SIGTERM or Ctrl-C; the same call goes on.
      OSError: at the end, if the results could not be written.
    """
    started, compile_time, say = time.perf_counter(), CompileTime(), _warning_once(say)
    workdir = local_folder(workdir)
    plan = planned_runs(tradeoff, workdir, say=say)
    workdir.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(workdir, say=say)
    members: dict[str, dict[str, Any]] = {}
    path = workdir / "results.json"
    with resumable(tradeoff.name), compile_time:
        _train_together(plan, quiet=quiet, say=say)
        for name, runs in plan.items():
            members[name] = _member(tradeoff, name, runs, members, quiet=quiet, say=say)
            keeper.write(write_json, path, _results(tradeoff, members, {}))
    seconds = {"total": round(time.perf_counter() - started, 2), **compile_time.seconds()}
    results = _results(tradeoff, members, seconds)
    first = next(iter(plan.values()))[0].experiment
    _print_table(tradeoff, members, threat_text(first), say)
    say(
        f"{seconds['total']:.1f} s in all, of them {seconds['tracing']:.1f} s tracing and "
        f"{seconds['compilation']:.1f} s compilation"
    )
    written = keeper.write(write_json, path, results)
    names = next((run.get("class_names", ()) for m in members.values() for run in m["runs"]), ())
    drawn = draw_figures(
        keeper, tradeoff, members, attack=_attack_text(tradeoff, plan), names=names
    )
    examples = [(runs[0].folder / "adversarial.png", name) for name, runs in plan.items()]
    reported = keeper.write(
        lambda: write_report(workdir, results, figures=drawn, examples=examples)
    )
    if drawn:
        say(f"figures: {', '.join(str(figure.path) for figure in drawn)}")
    shown = {"report": (workdir / "report.html", reported), "rows": (path, written)}
    if reported or written:
        say("   ".join(f"{word}: {file}" for word, (file, there) in shown.items() if there))
    keeper.close()
    return results


def _warning_once(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, which repeats no warning: the members of a trade-off have many of them in common."""
    said: set[str] = set()

    def once(line: str) -> None:
        if line.startswith("warning: "):
            if line in said:
                return
            said.add(line)
        say(line)

    return once


def _train_together(plan: Plan, *, quiet: bool, say: Callable[[str], None]) -> None:
    """Trains the runs that are not finished and differ in numbers only as one program each.

    A group that was interrupted goes on as a group. What fails here is left to be continued, or to
    fail, alone.
    """
    missing = [
        run
        for runs in plan.values()
        for run in runs
        if not run.taken and not run.bases and epochs_done(run.folder) < run.experiment.epochs
    ]
    while missing and jax.process_count() == 1:
        first = missing[0]
        group = [
            run
            for run in missing
            if alike(first.experiment, run.experiment) and level(first.folder, run.folder)
        ]
        missing = [run for run in missing if run not in group]
        if len(group) == 1:
            continue
        experiments, folders = [r.experiment for r in group], [r.folder for r in group]
        names = ", ".join(f"{e.name} {e.seed}" for e in experiments)
        say(f"{len(group)} runs in one program: {names}")
        try:
            train_many(experiments, folders, resume=True, quiet=quiet, say=say)
        except ENDS:
            raise
        except Exception as error:  # alone each of them says what is wrong with it
            say(f"not in one program: {one_line(error)[:200]}")


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
        except ENDS:
            raise
        except Exception as error:  # one member that cannot be trained must not cost the others
            kind = type(error).__name__
            found["failure"] = f"{kind}: {one_line(error).removeprefix(f'{kind}: ')}"
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
    there = begun(folder)
    keeper = Keeper(folder, say=say) if there else None
    if not run.taken:
        evaluation = experiment.evaluation
        # A finished run in somebody else's folder is evaluated as it is.
        if keeper is None or keeper.usable or epochs_done(folder) < experiment.epochs:
            train(experiment, folder, resume=there, quiet=quiet, say=say)
    keeper = keeper or Keeper(folder, say=say)
    checkpoint = checkpoint_of(folder, "best")
    asked: dict[str, Any] = {"experiment": experiment, "evaluation": evaluation}
    row = earlier_row(folder, checkpoint=checkpoint, **asked)
    known = row is not None
    if row is None:
        row = evaluate_run(
            folder, evaluation=evaluation, keeper=keeper, quiet=quiet,
            trust=experiment.packages(), say=say,
        )  # fmt: skip
    seconds = _add_training(row, folder, experiment)
    options: dict[str, Any] = {"keeper": keeper, "quiet": quiet, "say": say}
    judge = Judge(folder, checkpoint=row["checkpoint"], **asked, **options)
    judge.add(row, tradeoff)
    if keeper.error is not None:
        say(f"warning: the results of {folder} are not kept: {one_line(keeper.error)}")
    done = f"finished earlier, taken from {folder}" if known else f"{seconds:.1f} s of training"
    say(f"{name}, seed {experiment.seed}: {done}")
    return row


def _add_training(row: dict[str, Any], folder: pathlib.Path, experiment: Experiment) -> float:
    """Puts the validations and the seconds of training into a run's row; returns the seconds."""
    metrics = read_rows(folder / "metrics.jsonl")
    epochs = seconds_of(metrics, experiment.batch_size)
    validated = [r for r in metrics if "validation_robust_accuracy" in r]
    row["training"] = {
        "seconds": round(sum(epochs), 2),
        "first_epoch_seconds": round(sum(epochs[:1]), 2),
        "folder": str(folder),
        **{
            key: [r[key] for r in validated]
            for key in ("epoch", "validation_accuracy", "validation_robust_accuracy")
        },
    }
    return row["training"]["seconds"]


def _results(
    tradeoff: Tradeoff, members: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    return {
        "name": tradeoff.name,
        "seeds": list(tradeoff.seeds),
        "autoattack": dict(tradeoff.autoattack),
        "members": members,
        "provenance": provenance(),
        "seconds": seconds,
    }


def _attack_text(tradeoff: Tradeoff, plan: Plan) -> str:
    """The attack that robustness is told by where AutoAttack was not run."""
    first = next(iter(plan.values()))[0].experiment
    evaluation = (tradeoff.members or [first])[0].evaluation
    attacks = attacks_of(first, evaluation)
    return f"{worst_text(to_dict(evaluation), attacks)} (%)\n{threat_text(first)}"


def _print_table(
    tradeoff: Tradeoff, members: dict[str, Any], threat: str, say: Callable[[str], None]
) -> None:
    columns = columns_of(members)
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
            cells = [cell(figures.get(column)) for column in columns]
            name += " (a seed failed)" if "failure" in member else ""
        table.add_row(name, *cells)
    say_table(table, say)
