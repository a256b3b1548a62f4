"""Every member of a trade-off trained, attacked and drawn in one figure."""

import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
from rich.table import Table

from jaxrobust.commands._autoattack import autoattack_run
from jaxrobust.commands._compile_time import CompileTime
from jaxrobust.commands._console import table_console
from jaxrobust.commands._evaluate import earlier_row, evaluate_run, threat_text
from jaxrobust.commands._html import write_report
from jaxrobust.commands._summary import Figure, summary, worst_of
from jaxrobust.evaluation import (
    Point,
    draw_bars,
    draw_curves,
    draw_tradeoff,
    provenance,
    write_json,
)
from jaxrobust.experiment import Experiment, Tradeoff, to_dict
from jaxrobust.training import Interrupted, alike, read_rows, train, train_many


def run_tradeoff(
    tradeoff: Tradeoff,
    workdir: pathlib.Path,
    *,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains and attacks what is not finished yet, then writes the figure and the table.

    Members live in `members/` of the folder, one folder per seed; one that was interrupted goes on
    where it stopped, one that is finished is not done again, and where one fails the others go
    on: the table and `results.json` say why it failed.

    Args:
      tradeoff: the members.
      workdir: the folder of the figure, `tradeoff.png`, and the rows, `results.json`.
      quiet: no progress bars.
      say: where lines for the user go.

    Returns:
      What `results.json` holds: by member its `runs` (a row per seed), its `figures` (mean, low
      and high of each column) and, if there was one, its `failure`.
    """
    started, compile_time = time.perf_counter(), CompileTime()
    members: dict[str, dict[str, Any]] = {}
    with compile_time:
        _train_together(tradeoff, workdir, quiet=quiet, say=say)
        for member in tradeoff.members:
            members[member.name] = _member(tradeoff, member, workdir, quiet=quiet, say=say)
            _write(workdir, tradeoff, members, {})
    seconds = {"total": round(time.perf_counter() - started, 2), **compile_time.seconds()}
    results = _write(workdir, tradeoff, members, seconds)
    drawn = [*_draw(workdir, tradeoff, members), *_draw_training(workdir, tradeoff, members)]
    report = write_report(
        workdir,
        results,
        figures=[(path, CAPTIONS[path.name]) for path in drawn],
        examples=[
            (folder / "adversarial.png", name)
            for name in members
            for folder in [_folder(workdir, tradeoff, name, (tradeoff.seeds or (0,))[0])]
        ],
    )
    _print_table(tradeoff, members)
    say(
        f"{seconds['total']:.1f} s in all, of them {seconds['tracing']:.1f} s tracing and "
        f"{seconds['compilation']:.1f} s compilation"
    )
    say(f"figures: {', '.join(map(str, drawn))}")
    say(f"report: {report}   rows: {workdir / 'results.json'}")
    return results


def _train_together(
    tradeoff: Tradeoff, workdir: pathlib.Path, *, quiet: bool, say: Callable[[str], None]
) -> None:
    """Trains the runs that are not begun and differ in numbers only as one program each.

    What fails here, or was interrupted, is left to be continued, or to fail, alone.
    """
    missing = [
        (run, folder)
        for member in tradeoff.members
        for run, folder in _runs(tradeoff, member, workdir)
        if not (folder / "config.json").exists()
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


def _runs(
    tradeoff: Tradeoff, member: Experiment, workdir: pathlib.Path
) -> list[tuple[Experiment, pathlib.Path]]:
    """A member with each seed, and its folder."""
    return [
        (replace(member, seed=seed), _folder(workdir, tradeoff, member.name, seed))
        for seed in tradeoff.seeds or (member.seed,)
    ]


def _member(
    tradeoff: Tradeoff,
    member: Experiment,
    workdir: pathlib.Path,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """All seeds of one member; what fails is told and kept in the results."""
    found: dict[str, Any] = {"objective": to_dict(member)["objective"], "runs": []}
    try:
        for run, folder in _runs(tradeoff, member, workdir):
            row = _run(run, folder, quiet=quiet, say=say)
            row["autoattack_accuracy"] = {
                f"{norm} {eps:.6g}": _autoattack(folder, norm, eps, quiet=quiet)
                for norm, eps in tradeoff.autoattack.items()
            }
            found["runs"].append(row)
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:  # one member that cannot be trained must not cost the others
        found["failure"] = f"{type(error).__name__}: {error}"
        say(f"{member.name} failed: {found['failure']}")
    found["figures"] = {name: f._asdict() for name, f in summary(found["runs"]).items()}
    return found


def _folder(workdir: pathlib.Path, tradeoff: Tradeoff, name: str, seed: int) -> pathlib.Path:
    """Where one run lives."""
    folder = workdir / "members" / name
    return folder / f"seed{seed}" if tradeoff.seeds else folder


def _run(
    member: Experiment, workdir: pathlib.Path, *, quiet: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """The row of one seed: of an earlier evaluation, or after training what is missing."""
    there = (workdir / "config.json").exists()
    trained = train(member, workdir, resume=there, quiet=quiet, say=say)
    row = earlier_row(workdir, checkpoint="best", evaluation=member.evaluation)
    if row is None:
        row = evaluate_run(workdir, quiet=quiet, say=say)
        row["seconds"] = round(trained.seconds, 2)
        say(
            f"{member.name}, seed {member.seed}: trained and attacked in "
            f"{trained.seconds:.1f} s of training"
        )
    else:
        say(f"{member.name}, seed {member.seed}: finished earlier, taken from {workdir}")
    return row


def _autoattack(workdir: pathlib.Path, norm: str, eps: float, *, quiet: bool) -> dict[str, Any]:
    """The accuracy under AutoAttack; its finished items are not done again."""
    (report,) = autoattack_run(workdir, norm=norm, eps=[eps], quiet=quiet, say=lambda line: None)
    return report.robust_accuracy._asdict()


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


def _draw(folder: pathlib.Path, tradeoff: Tradeoff, members: dict[str, Any]) -> list[pathlib.Path]:
    """Clean against robust accuracy, and where it was evaluated spatial against robust."""
    figures = {
        name: {column: Figure(**f) for column, f in member["figures"].items()}
        for name, member in members.items()
        if member["figures"]
    }
    if not figures:
        return []
    columns = list(next(iter(figures.values())))
    planes = {"tradeoff.png": "clean"}
    for column in columns:
        if column.startswith("spatial grid"):
            planes["spatial.png"] = column
    for file, column in planes.items():
        points = [Point(name, found[column], worst_of(found)) for name, found in figures.items()]
        against = "accuracy" if column == "clean" else "spatial accuracy"
        draw_tradeoff(
            folder / file,
            points,
            title=f"{tradeoff.name}: {against} against robustness (bars: {_bars(tradeoff)})",
            robust_label=f"accuracy under {_attack_text(tradeoff)}, image units",
            clean_label=f"accuracy (%), {column}" if column != "clean" else "clean accuracy (%)",
        )
    return [folder / file for file in planes]


def _draw_training(
    folder: pathlib.Path, tradeoff: Tradeoff, members: dict[str, Any]
) -> list[pathlib.Path]:
    """Robust accuracy in training over the epochs, and what each method cost."""
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    costs: dict[str, float] = {}
    for name, member in members.items():
        if not member["figures"]:
            continue
        seed = (tradeoff.seeds or (0,))[0]
        metrics = _folder(folder, tradeoff, name, seed) / "metrics.jsonl"
        key = "validation_robust_accuracy"
        found = [(r["epoch"], r[key]) for r in read_rows(metrics) if key in r]
        if found:
            curves[name] = found
        seconds = [run["seconds"] for run in member["runs"] if "seconds" in run]
        if seconds:
            costs[name] = sum(seconds) / len(seconds)
    drawn = []
    if curves:
        drawn.append(folder / "curves.png")
        draw_curves(
            drawn[-1],
            curves,
            title=f"{tradeoff.name}: during training (first seed)",
            label="accuracy under margin PGD,\nheld-out training images (%)",
        )
    if costs:
        drawn.append(folder / "cost.png")
        draw_bars(
            drawn[-1],
            costs,
            title=f"{tradeoff.name}: cost of training, compilation included (mean over seeds)",
            label="seconds",
        )
    return drawn


CAPTIONS = {
    "tradeoff.png": "Clean against robust accuracy.",
    "spatial.png": "Accuracy under rotations and shifts against robust accuracy.",
    "curves.png": "Robust accuracy on held-out training images during training.",
    "cost.png": "Training time of each method.",
}


def _attack_text(tradeoff: Tradeoff) -> str:
    """The attack of the vertical axis: AutoAttack where it was run."""
    if tradeoff.autoattack:
        norm, eps = next(iter(tradeoff.autoattack.items()))
        return f"AutoAttack (%)\n{norm} eps {eps:.6g}"
    first = tradeoff.members[0]
    return f"PGD-{first.evaluation.steps} (CE and margin) (%)\n{threat_text(first)}"


def _bars(tradeoff: Tradeoff) -> str:
    count = len(tradeoff.seeds)
    return f"range of {count} seeds" if count > 1 else "95 % intervals"


def _print_table(tradeoff: Tradeoff, members: dict[str, Any]) -> None:
    shown = [member for member in members.values() if member["figures"]]
    columns = list(shown[0]["figures"]) if shown else []
    table = Table(
        title=f"{tradeoff.name}: accuracy in % (± half of {_bars(tradeoff)}), "
        f"{threat_text(tradeoff.members[0])}",
        title_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, member in members.items():
        if member["figures"]:
            figures = [member["figures"][column] for column in columns]
            cells = [f"{100 * f['value']:.1f} ±{50 * (f['high'] - f['low']):.1f}" for f in figures]
        else:
            cells = ["failed"] + [""] * (len(columns) - 1)
        table.add_row(name, *cells)
    table_console().print(table)
