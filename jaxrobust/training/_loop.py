"""The training loop: one run or several as one program, read from top to bottom."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxrobust.convolutions import compiler_options
from jaxrobust.devices import bytes_per_device
from jaxrobust.experiment import Experiment
from jaxrobust.inputs import as_count
from jaxrobust.interrupts import Interrupted, StopRequest
from jaxrobust.processes import LostProcessError, StopVote, from_first, is_first
from jaxrobust.reasons import first_line
from jaxrobust.training._checkpoints import CheckpointError
from jaxrobust.training._folder import (
    check_constants,
    check_data,
    check_free,
    check_shared,
    claim,
    holding,
)
from jaxrobust.training._member import Member, NonFiniteLossError
from jaxrobust.training._prepare import Prepared, lowered, prepare
from jaxrobust.training._program import Group
from jaxrobust.training._reporting import TrainingBar, check_board, epoch_line
from jaxrobust.training._state import TrainState


class Trained(NamedTuple):
    """A finished run.

    Attributes:
      state: after the last step.
      model: the network; a Linen module is its `module`.
      workdir: the run's folder.
      seconds: wall time of this call's steps, compilation included.
    """

    state: TrainState
    model: Any
    workdir: pathlib.Path | epath.Path
    seconds: float


def run_group(
    experiments: Sequence[Experiment],
    members: Sequence[Member],
    group: Group,
    *,
    resume: bool,
    stop_at: int | None,
    quiet: bool,
    tensorboard: bool,
    say: Callable[[str], None],
) -> list[Trained | NonFiniteLossError]:
    """Trains one run or several, which differ in the group alone."""
    for experiment in experiments:
        if experiment.sweep:
            raise ValueError(
                f"{experiment.name} has a sweep, so it stands for several runs, which a trade-off "
                "trains (jaxrobust tradeoff FILE); to train one of them, set sweep={}"
            )
    first, folders = experiments[0], [member.folder for member in members]
    name = first.name if len(members) == 1 else f"{len(members)} x {first.name}"
    if stop_at is not None:
        as_count(stop_at, name="stop_at", least=0)
    for folder in folders if tensorboard else ():
        check_board(folder)
    with contextlib.ExitStack() as opened:
        opened.enter_context(holding(folders, say=say))
        # ---- everything is checked before the folders become these runs' --------------------
        for folder, experiment in zip(folders, experiments, strict=True):
            from_first(partial(check_free, folder, experiment, resume=resume, say=say))
        saved = from_first(lambda: _common_steps(members, name))
        made = prepare(experiments, group, from_weights=not saved, say=say)
        supply = opened.enter_context(contextlib.closing(made.supply))
        states, step, traced = made.states, 0, None
        if not saved:
            arguments = states, *supply.at(0), *made.parts
            traced = lowered(made.train_step, arguments, name=first.name)
            made.validators[0].check(made.model, group.split(states)[0])
        for folder, experiment in zip(folders, experiments, strict=True):
            from_first(partial(claim, folder, experiment))
            from_first(partial(check_constants, folder, made.model, first=True))
            digest = supply.digests[experiment.seed]
            from_first(partial(check_data, folder, digest, resumed=bool(saved)))
            check_shared(folder)
        if saved:
            step, states = _restored(members, group, saved, states)
            say(f"resuming {name} at step {step}")

        last = first.epochs * supply.steps_per_epoch
        end = last if stop_at is None else min(stop_at, last)
        bar = TrainingBar(name, last, done=step, quiet=quiet or not is_first(), say=say)
        for member in members:
            member.open(step, supply.steps_per_epoch, tensorboard=tensorboard)
        started = time.perf_counter()
        with StopRequest() as stop, _closed_at_the_end(name, members, bar, stop):
            states, step, asked = _steps(
                first, made, members, group, states, step, end, traced, bar, stop
            )
            kept = group.split(states)
            with stop.shielded():
                for member, state in zip(members, kept, strict=True):
                    member.save(step, state)
                for member in members:
                    member.checkpoints.wait()
    if asked is not None and step < last and _alive(members):
        raise _interrupted(first.name, folders, asked, step, last)
    seconds = (time.perf_counter() - started) / len(members)
    return [
        member.failure or Trained(state, made.model, member.folder, seconds)
        for member, state in zip(members, kept, strict=True)
    ]


def _steps(
    experiment: Experiment,
    made: Prepared,
    members: Sequence[Member],
    group: Group,
    states: TrainState,
    step: int,
    end: int,
    traced: Any,
    bar: TrainingBar,
    stop: StopRequest,
) -> tuple[TrainState, int, int | None]:
    """The loop, until the end, a signal, or the failure of all members.

    Returns:
      The states, their step, and the signal.
    """
    steps_per_epoch, vote = made.supply.steps_per_epoch, StopVote(group.mesh)
    last, program, asked = experiment.epochs * steps_per_epoch, None, None
    while step < end and asked is None and _alive(members):
        end_of_epoch, pending = (step // steps_per_epoch + 1) * steps_per_epoch, None
        while step < min(end, end_of_epoch) and asked is None and _alive(members):
            arguments = states, *made.supply.at(step), *made.parts
            if program is None:
                bar.compiling()
                traced = traced or lowered(made.train_step, arguments, name=experiment.name)
                program = traced.compile(compiler_options())
                taken = {"devices": group.mesh.size, **group.row, **bytes_per_device(program)}
            states, metrics = program(*arguments)
            step += 1
            asked = vote.cast(stop.received)
            _see(members, group, pending)
            pending = step, metrics
            bar.update(step, members[0].figures() if len(members) == 1 else {})
        _see(members, group, pending)
        if step == end_of_epoch:
            due = step // steps_per_epoch % experiment.validation.every == 0 or step == last
            rows = _end_epoch(made, members, group, states, step, taken, stop, validated=due)
            if rows:
                bar.end_epoch(epoch_line(experiment, rows, last=last))
    return states, step, asked


@contextlib.contextmanager
def _closed_at_the_end(
    name: str, members: Sequence[Member], bar: TrainingBar, stop: StopRequest
) -> Iterator[None]:
    """Closes the files.

    Raises:
      LostProcessError: if another process has ended; then no checkpoints are waited for.
    """
    lost = False
    try:
        yield
    except (jax.errors.JaxRuntimeError, LostProcessError) as error:
        lost = jax.process_count() > 1
        if lost:
            saved = members[0].checkpoints.steps()
            raise LostProcessError(lost_message(name, saved, error)) from error
        raise
    finally:
        with stop.shielded():
            bar.close()
            for member in members:
                member.close(lost=lost)


def _alive(members: Sequence[Member]) -> bool:
    return any(member.failure is None for member in members)


def _see(members: Sequence[Member], group: Group, pending: tuple[int, Any] | None) -> None:
    """Shows each member its metrics of the step before, so that the device never waits."""
    if pending is None:
        return
    step, metrics = pending
    for member, own in zip(members, group.split(jax.device_get(metrics)), strict=True):
        member.see(step, own)


def _end_epoch(
    made: Prepared,
    members: Sequence[Member],
    group: Group,
    states: TrainState,
    step: int,
    taken: dict[str, int],
    stop: StopRequest,
    *,
    validated: bool,
) -> list[dict[str, Any]]:
    """Validates, writes and saves each member that has not failed; returns their rows."""
    kept = group.split(states) if validated or group.every_epoch else [None] * len(members)
    rows, rate = [], float(made.learning_rate(step - 1))
    for member, state, validator in zip(members, kept, made.validators, strict=True):
        if member.failure is not None:
            continue
        validate = partial(validator, made.model, state) if validated else None
        rows.append(member.end_epoch(step, learning_rate=rate, validate=validate, more=taken))
        if state is not None:
            with stop.shielded():
                member.save(step, state)
    return rows


def _common_steps(members: Sequence[Member], name: str) -> list[int]:
    """The steps of which every member has a checkpoint, latest first; none if nobody has any.

    Raises:
      CheckpointError: if there are checkpoints, but none of one step.
    """
    steps = {member.folder: member.checkpoints.steps() for member in members}
    common = set.intersection(*map(set, steps.values()))
    if any(steps.values()) and not common:
        found = "; ".join(f"{f}: {', '.join(map(str, s)) or 'none'}" for f, s in steps.items())
        raise CheckpointError(
            f"{name} have no checkpoint of a common step ({found}); continue each run alone"
        )
    return sorted(common, reverse=True)


def _restored(
    members: Sequence[Member], group: Group, steps: list[int], target: TrainState
) -> tuple[int, TrainState]:
    """The latest of some steps that every member can read, and the states there.

    Raises:
      CheckpointError: if there is none.
    """
    found, rest = [], steps
    for member, own in zip(members, group.split(target), strict=True):
        step, state = member.checkpoints.restore(rest, own)
        found.append((step, state))
        rest = rest[rest.index(step) :]
    if any(step != rest[0] for step, _ in found):
        return _restored(members, group, rest, target)
    return rest[0], group.stack([state for _, state in found])


def _interrupted(
    name: str, folders: Sequence[epath.Path], asked: int, step: int, last: int
) -> Interrupted:
    saved = f"stopped by signal {asked}; saved step {step} of {last}"
    if len(folders) == 1:
        hint = f"continue with jaxrobust train EXPERIMENT --workdir {folders[0]} --resume"
        return Interrupted(f"{name} {saved} in {folders[0]}", hint, asked)
    hint = "continue them with train_many(..., resume=True), or each with jaxrobust train "
    hint += "EXPERIMENT --workdir ITS_FOLDER --resume"
    return Interrupted(f"{len(folders)} runs {saved}", hint, asked)


def lost_message(name: str, saved: list[int], error: Exception) -> str:
    """In one line: what happened, and how to go on."""
    where = (
        f"its last checkpoint is that of step {saved[-1]}" if saved else "it has no checkpoint yet"
    )
    reason = first_line(error, longest=200)
    return (
        f"another process of {name} has ended, so process {jax.process_index()} ends too "
        f"({reason}); {where}: start all processes again with --resume"
    )
