"""Every member of a trade-off trained, attacked and drawn in one report."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from rich.table import Table

from jaxrobust.commands._compile_time import CompileTime
from jaxrobust.commands._console import say_table
from jaxrobust.commands._fronts import Plane, fronts_text, measured_lines
from jaxrobust.commands._html import write_report
from jaxrobust.commands._identity import DataDigests, checkpoint_of, threat_text
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._members import Members, cell, columns_of, numbers_of_member
from jaxrobust.commands._run_rows import RunRows, row_lines
from jaxrobust.commands._stopping import resumable
from jaxrobust.commands._tradeoff_figures import draw_figures, draw_planes
from jaxrobust.commands._tradeoff_runs import PlannedRun, epochs_done, level, planned_runs
from jaxrobust.evaluation import Evaluator, bars, front, provenance, write_json
from jaxrobust.experiment import Experiment, Tradeoff, to_dict, tradeoff_evaluators
from jaxrobust.reasons import one_line
from jaxrobust.storage import check_folder, local_folder
from jaxrobust.training import (
    FolderInUseError,
    Interrupted,
    Trained,
    alike,
    begun,
    check_free,
    read_rows,
    train,
    train_many,
)

Plan = dict[str, list[PlannedRun]]
# Whether this call has finished the training of a run in one program with others, by its folder.
Tried = dict[pathlib.Path, bool]
PGD_PLANE = Plane("clean", "worst PGD")
# What is no failure of a member: it ends the whole command.
ENDS = (Interrupted, KeyboardInterrupt, FolderInUseError)


def run_tradeoff(
    tradeoff: Tradeoff,
    workdir: pathlib.Path,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains and attacks all unfinished members, then writes the figures, table and report.

    Members are in `members/` of the folder, one folder per seed. An interrupted member continues
    where it stopped, and a finished member or evaluation is not repeated. If a member fails, the
    others continue; table, figures and `results.json` record the failure.

    Args:
      tradeoff: the members.
      workdir: the folder of the report, `report.html`, its figures and the rows, `results.json`.
      quiet: no progress bars, and no lines about progress in a log.
      say: called with each line of output for the user.

    Returns:
      The content of `results.json`: for each member its `runs` (for each seed the experiment, the
        training and the rows of its evaluations) and, if it failed, its `failure`.

    Raises:
      ValueError: if a listed existing run is missing, unfinished or of another task, a member's
        folder holds a run with other settings of training, or the folder is in a bucket.
      FolderInUseError: if another process trains or attacks one of the members (a ValueError).
      Interrupted: after SIGTERM or Ctrl-C; the same call continues.
      OSError: at the end, if the results could not be written.
    """
    started, compile_time, say = time.perf_counter(), CompileTime(), _warning_once(say)
    workdir = local_folder(workdir)
    check_folder(workdir)
    plan = planned_runs(tradeoff, workdir, say=say)
    for run in (run for runs in plan.values() for run in runs if not run.taken):
        check_free(run.folder, run.experiment, resume=True, say=_warnings_alone(say))
    workdir.mkdir(parents=True, exist_ok=True)
    keeper = Keeper(workdir, say=say)
    members: Members = {}
    data = DataDigests()
    first = next(iter(plan.values()))[0].experiment
    asked = (tradeoff.members or [first])[0]
    evaluators = tradeoff_evaluators(tradeoff, asked)
    path = workdir / "results.json"
    tried: Tried = {}
    with resumable(tradeoff.name), compile_time:
        for name, runs in plan.items():
            for run in runs:
                _train_together(plan, run, tried, quiet=quiet, say=say)
            members[name] = _member(
                evaluators, name, runs, members, data, tried, quiet=quiet, say=say
            )
            line = _finished_line(plan, name)
            for best in _best_of(members, line) if tradeoff.front_evaluators else ():
                runs, more = plan[best], (*evaluators, *tradeoff.build_front_evaluators())
                tried |= {run.folder: True for run in runs}
                members[best] = _member(
                    more, best, runs, members, data, tried, quiet=quiet, say=say
                )
            if _has_rows(members):  # else an earlier report is worth more
                keeper.write(write_json, path, _results(tradeoff, members, {}))
            if not quiet:
                _say_done(plan, members, time.perf_counter() - started, say)
            if plan[name][0].sweep and line and len(members) < len(plan):
                passed = round(time.perf_counter() - started, 2)
                _report_so_far(tradeoff, members, keeper, passed, say)
    seconds = {"total": round(time.perf_counter() - started, 2), **compile_time.seconds()}
    results = _results(tradeoff, members, seconds)
    _print_table(tradeoff, members, threat_text(first), say)
    if not _has_rows(members):
        earlier = f"; {path} is of an earlier run" if path.exists() else ""
        say(f"warning: every member failed, so there is no report{earlier}")
        return results
    say(
        f"{seconds['total']:.1f} s in total, including {seconds['tracing']:.1f} s of tracing "
        f"and {seconds['compilation']:.1f} s of compilation"
    )
    _print_fronts(results, say)
    written = keeper.write(write_json, path, results)
    drawn = draw_figures(
        keeper,
        members,
        name=tradeoff.name,
        evaluators=(*evaluators, *tradeoff.build_front_evaluators()),
        planes=tradeoff.planes,
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
    """`say` without repeated warnings, because the members of a trade-off share many of them."""
    said: set[str] = set()

    def once(line: str) -> None:
        if line.startswith("warning: "):
            if line in said:
                return
            said.add(line)
        say(line)

    return once


def _warnings_alone(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` for warnings, which may say why a check fails; all else is left to `train`."""
    return lambda line: say(line) if line.startswith("warning: ") else None


def _finished_line(plan: Plan, name: str) -> list[str]:
    """The points of a line if a member is the last of them (without a sweep, the only one)."""
    line = [n for n in plan if _line(n, plan[n]) == _line(name, plan[name])]
    return line if line[-1] == name else []


def _line(name: str, runs: Sequence[PlannedRun]) -> tuple[str, bool]:
    sweep = runs[0].sweep
    return (name, False) if sweep is None else (sweep["line"], True)


def _has_rows(members: Members) -> bool:
    return any(run["rows"] for member in members.values() for run in member["runs"])


def _best_of(members: Members, line: Sequence[str]) -> list[str]:
    """The points on a line's own front, by the accuracies that all of its points have."""
    points = {name: members[name] for name in line if "failure" not in members[name]}
    for measured in measured_lines(points, PGD_PLANE):
        clean, robust = measured.line.clean[:, 0], measured.line.robust[:, 0]
        names = [n for n in points if set(PGD_PLANE) <= numbers_of_member(points[n]).keys()]
        return [names[place] for place in front(clean, robust)]
    return []


def _report_so_far(
    tradeoff: Tradeoff,
    members: Members,
    keeper: Keeper,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """The figures of the planes and a preliminary report, before the other lines are finished."""
    drawn = draw_planes(keeper, members, name=tradeoff.name, planes=tradeoff.planes)
    results = _results(tradeoff, members, {"total": seconds})
    keeper.write(lambda: write_report(keeper.folder, results, figures=drawn, examples=[]))
    for figure in drawn[:1]:
        say(f"{seconds:.0f} s: {figure.path} and the report have {len(members)} members so far")


def _train_together(
    plan: Plan,
    wanted: PlannedRun,
    tried: Tried,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Trains an unfinished run together with all that differ from it only in numbers.

    An interrupted group continues as a group. Runs that fail here are later continued, or fail, one
    by one.
    """
    if jax.process_count() > 1 or not _missing(wanted, tried):
        return
    group = [
        run
        for runs in plan.values()
        for run in runs
        if _missing(run, tried)
        and alike(wanted.experiment, run.experiment)
        and level(wanted.folder, run.folder)
    ]
    if len(group) == 1:
        return
    experiments, folders = [r.experiment for r in group], [r.folder for r in group]
    names = ", ".join(f"{e.name} (seed {e.seed})" for e in experiments)
    say(f"{len(group)} runs in one program: {names}")
    tried |= dict.fromkeys(folders, False)
    try:
        found = train_many(experiments, folders, resume=True, quiet=quiet, say=say)
        done = [isinstance(run, Trained) for run in found]
        tried |= dict(zip(folders, done, strict=True))
    except ENDS:
        raise
    except Exception as error:  # alone each of them says what is wrong with it
        say(f"not trained in one program: {one_line(error)[:200]}")


def _say_done(plan: Plan, members: Members, seconds: float, say: Callable[[str], None]) -> None:
    """How much of the whole is done."""
    done, whole = (sum(len(plan[name]) for name in names) for names in (members, plan))
    say(f"{done}/{whole} runs done, after {seconds:.0f} s")


def _missing(run: PlannedRun, tried: Tried) -> bool:
    """Whether a run is not yet trained and may be trained with others."""
    if run.taken or run.bases or run.folder in tried:
        return False
    return epochs_done(run.folder) < run.experiment.epochs


def _member(
    evaluators: Sequence[Evaluator],
    name: str,
    runs: list[PlannedRun],
    earlier: Members,
    data: DataDigests,
    tried: Tried,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All seeds of one member; a failure is printed and kept in the results."""
    found: dict[str, Any] = {"objective": to_dict(runs[0].experiment)["objective"], "runs": []}
    found |= {} if runs[0].sweep is None else {"sweep": runs[0].sweep}
    for run in runs:
        try:
            for base in run.bases:
                if "failure" in earlier[base]:
                    raise ValueError(f"it is made of the member {base!r}, which failed")
            trained = run.taken or tried.get(run.folder, False)
            found["runs"].append(_run(evaluators, run, name, data, trained, quiet=quiet, say=say))
        except ENDS:
            raise
        except Exception as error:  # one member that cannot be trained must not cost the others
            kind = type(error).__name__
            found["failure"] = f"{kind}: {one_line(error).removeprefix(f'{kind}: ')}"
            say(f"{name} failed: {found['failure']}")
    return found


def _run(
    evaluators: Sequence[Evaluator],
    run: PlannedRun,
    name: str,
    data: DataDigests,
    trained: bool,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """One run: its experiment, its training and its rows, after doing any missing work."""
    experiment, folder = run.experiment, run.folder
    there = begun(folder)
    keeper = Keeper(folder, say=say) if there else None
    # A finished run in somebody else's folder is evaluated as it is.
    closed = keeper is not None and not keeper.usable and epochs_done(folder) >= experiment.epochs
    if not trained and not closed:
        train(experiment, folder, resume=there, quiet=quiet, say=say)
    keeper = keeper or Keeper(folder, say=say)
    rows = RunRows(
        folder,
        experiment=experiment,
        checkpoint=checkpoint_of(folder, "best"),
        keeper=keeper,
        quiet=quiet,
        say=say,
        data=data,
    )
    found = []
    for evaluator in evaluators:
        made = rows.made
        found.append(rows.row(evaluator))
        if rows.made > made:
            for line in row_lines(found[-1], held_out=experiment.validation.size > 0):
                say(line)
    rows.draw()
    if keeper.error is not None:
        say(f"warning: the results of {folder} are not kept: {one_line(keeper.error)}")
    training = _training(folder, experiment)
    done = f"{training['seconds']:.1f} s of training"
    if not rows.made:
        done = f"finished earlier, taken from {folder}"
    say(f"{name}, seed {experiment.seed}: {done}")
    return {
        "experiment": to_dict(experiment),
        "training": training,
        "rows": [row.to_dict() for row in found],
    }


def _training(folder: pathlib.Path, experiment: Experiment) -> dict[str, Any]:
    """The validations and the seconds of a run's training."""
    metrics = read_rows(folder / "metrics.jsonl")
    epochs = seconds_of(metrics, experiment.batch_size)
    validated = [r for r in metrics if "validation_robust_accuracy" in r]
    return {
        "seconds": round(sum(epochs), 2),
        "first_epoch_seconds": round(sum(epochs[:1]), 2),
        "folder": str(folder),
        **{
            key: [r[key] for r in validated]
            for key in ("epoch", "validation_accuracy", "validation_robust_accuracy")
        },
    }


def seconds_of(rows: Sequence[dict[str, Any]], batch_size: int) -> list[float]:
    """The seconds of each epoch, compilation and validation included, from a run's metrics.

    For runs trained as one program, these are this run's share.
    """
    seconds, before = [], 0
    for row in rows:
        if row.get("examples_per_second"):
            examples = (row["step"] - before) * batch_size
            seconds.append(examples / row["examples_per_second"] / row.get("members", 1))
        before = row["step"]
    return seconds


def _results(tradeoff: Tradeoff, members: Members, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "name": tradeoff.name,
        "seeds": list(tradeoff.seeds),
        "members": members,
        "fronts": {
            "planes": [list(plane) for plane in tradeoff.planes],
            "reference": list(tradeoff.reference),
            "clean_at": list(tradeoff.clean_at),
            "compared": [list(pair) for pair in tradeoff.compared],
        },
        "provenance": provenance(),
        "seconds": seconds,
    }


def _print_table(
    tradeoff: Tradeoff, members: Members, threat: str, say: Callable[[str], None]
) -> None:
    found = {name: numbers_of_member(member) for name, member in members.items()}
    columns = columns_of(found.values())
    seeds = bars(max(len(member["runs"]) for member in members.values()))
    table = Table(
        title=f"{tradeoff.name}: accuracy in % (± half of {seeds}), {threat}",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    for name, numbers in found.items():
        cells = ["failed"] + [""] * (len(columns) - 1)
        if numbers:
            cells = [cell(numbers.get(column)) for column in columns]
            name += " (a seed failed)" if "failure" in members[name] else ""
        table.add_row(name, *cells)
    say_table(table, say)


def _print_fronts(results: dict[str, Any], say: Callable[[str], None]) -> None:
    """The table of the lines, and a sentence for each comparison."""
    cells, sentences = fronts_text(results)
    if not cells:
        return
    table = Table(title="fronts: accuracies and areas in %", title_justify="left")
    table.add_column(cells[0][0], no_wrap=True)
    for column in cells[0][1:]:
        table.add_column(column, justify="right")
    for row in cells[1:]:
        table.add_row(*row)
    say_table(table, say)
    for sentence in sentences:
        say(sentence)
