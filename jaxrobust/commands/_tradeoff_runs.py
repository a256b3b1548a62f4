"""The runs of a trade-off's members: their folders, and which ones exist already."""

import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from jaxrobust.experiment import MEMBER, Experiment, SweepPoint, Tradeoff, bases
from jaxrobust.rows import read_rows
from jaxrobust.storage import local_folder
from jaxrobust.training import Checkpoints, read_config


class PlannedRun(NamedTuple):
    """One run of a member.

    Attributes:
      experiment: the experiment that is, or was, trained.
      folder: its folder.
      taken: whether it was finished elsewhere and is only evaluated.
      bases: the members whose runs its network is built from.
      sweep: for a point of a sweep, the "line", its "knob" and the knob's "value".
    """

    experiment: Experiment
    folder: pathlib.Path
    taken: bool
    bases: tuple[str, ...]
    sweep: dict[str, Any] | None = None


def planned_runs(
    tradeoff: Tradeoff, workdir: pathlib.Path, *, say: Callable[[str], None] = print
) -> dict[str, list[PlannedRun]]:
    """The runs of every member; existing runs come first.

    Args:
      tradeoff: the members.
      workdir: the trade-off's folder; its own runs are in `members/` there.
      say: called with a line about a damaged configuration that has a copy.

    Returns:
      The runs by member.

    Raises:
      ValueError: if a listed existing run is missing, is unfinished, or has other data or another
        threat than the rest.
    """
    plan: dict[str, list[PlannedRun]] = {}
    for name, named in tradeoff.runs.items():
        folders = [local_folder(f) for f in ([named] if isinstance(named, str) else named)]
        plan[name] = [PlannedRun(_finished(name, f, say), f, True, ()) for f in folders]
    for point in tradeoff.points():
        member = point.experiment
        plan[member.name] = [
            _own(tradeoff, point, seed, number, workdir, plan)
            for number, seed in enumerate(tradeoff.seeds or (member.seed,))
        ]
    _check_alike(tradeoff, plan)
    return plan


def _finished(name: str, folder: pathlib.Path, say: Callable[[str], None]) -> Experiment:
    """The experiment of a finished run."""
    try:
        experiment = read_config(folder, say=say)
    except ValueError as error:
        raise ValueError(f"runs: {name}: {error}") from None
    done = epochs_done(folder)
    if done < experiment.epochs:
        raise ValueError(
            f"runs: {name}: {folder} is not finished, {done} of {experiment.epochs} epochs are "
            f"done; continue it with `jaxrobust train EXPERIMENT --workdir {folder} --resume`"
        )
    return experiment


def epochs_done(folder: pathlib.Path) -> int:
    """The number of epochs that a run has finished, by its metrics."""
    metrics = folder / "metrics.jsonl"
    rows = read_rows(metrics) if metrics.is_file() else []
    return max((row.get("epoch", 0) for row in rows), default=0)


def level(folder: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two runs can continue together without losing more than one checkpoint.

    Args:
      folder: the folder of a run.
      other: the folder of another run.

    Returns:
      True if neither has a checkpoint, or a step is among the last two of both: an interruption
      may find some runs of a group saved and others not yet.
    """
    ours, theirs = (set(Checkpoints(f / "checkpoints").steps()[-2:]) for f in (folder, other))
    return bool(ours & theirs) or not (ours or theirs)


def _own(
    tradeoff: Tradeoff,
    point: SweepPoint,
    seed: int,
    number: int,
    workdir: pathlib.Path,
    plan: dict[str, list[PlannedRun]],
) -> PlannedRun:
    """A member with a seed, with its bases' folders in place of their names."""
    member, swept = point.experiment, {"line": point.line, "knob": point.knob, "value": point.value}
    folder = workdir / "members" / member.name
    made_of = bases(member)
    found = {}
    for argument, value in member.model.kwargs.items():
        if isinstance(value, str) and value.startswith(MEMBER):
            runs = plan[value.removeprefix(MEMBER)]
            found[argument] = str(runs[min(number, len(runs) - 1)].folder)
    model = replace(member.model, kwargs={**member.model.kwargs, **found})
    return PlannedRun(
        replace(member, seed=seed, model=model),
        folder / f"seed{seed}" if tradeoff.seeds else folder,
        False,
        tuple(made_of),
        swept if point.knob else None,
    )


def _check_alike(tradeoff: Tradeoff, plan: dict[str, list[PlannedRun]]) -> None:
    """Raises unless all have the same task and attacks: a table column is one quantity."""
    for member in tradeoff.members[1:]:
        one = replace(member.evaluation, batch_size=tradeoff.members[0].evaluation.batch_size)
        pairs = {
            "threat": (member.threat, tradeoff.members[0].threat),
            "evaluation": (one, tradeoff.members[0].evaluation),
            "evaluators": (member.evaluators, tradeoff.members[0].evaluators),
        }
        for part, (theirs, ours) in pairs.items():
            if theirs != ours:
                raise ValueError(
                    f"members of {tradeoff.name} must have the same {part}: {member.name} has "
                    f"{theirs}, {tradeoff.members[0].name} has {ours}"
                )
    first = next(iter(tradeoff.members), None) or next(iter(plan.values()))[0].experiment
    for name in tradeoff.runs:
        for run in plan[name]:
            for part in ("data", "threat"):
                theirs, ours = getattr(run.experiment, part), getattr(first, part)
                if theirs != ours:
                    raise ValueError(
                        f"runs: {name}: {run.folder} has the {part} {theirs}, {first.name} has "
                        f"{ours}"
                    )
