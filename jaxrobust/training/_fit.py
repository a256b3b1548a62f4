"""The training loop: one run or several as one program, read from top to bottom."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
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
from jaxrobust.storage import Folder, run_folder
from jaxrobust.training._checkpoints import CheckpointError
from jaxrobust.training._folder import (
    check_constants,
    check_free,
    check_shared,
    claim,
    holding,
)
from jaxrobust.training._member import Listener, Member, NonFiniteLossError
from jaxrobust.training._prepare import Prepared, lowered, prepare
from jaxrobust.training._program import Alone, Group, Runner, Together
from jaxrobust.training._reporting import TrainingBar, check_board, epoch_line, tell
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


def train(
    experiment: Experiment,
    workdir: Folder,
    *,
    resume: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    keep: int = 2,
    stop_at: int | None = None,
    runner: Runner = "shard_map",
    devices: Sequence[Any] | None = None,
    on_metrics: Listener | None = None,
    say: Callable[[str], None] = tell,
) -> Trained:
    """Trains an experiment; the folder holds configuration, metrics and checkpoints.

    A checkpoint is written after every epoch, and where SIGTERM or Ctrl-C arrives. On one
    device a resumed run continues bit for bit as if it had never stopped. Data, model, objective
    and step are checked before anything is written. The folder is locked while a run uses it
    (buckets cannot be). A run that fails before its first checkpoint and row of metrics leaves the
    folder free for another one. Of several processes (`join_processes`) all must call this with the
    same arguments and a folder that they share; process 0 writes the metrics, a signal to any of
    them stops all.

    Args:
      experiment: what to train.
      workdir: the run's folder, or `gs://bucket/folder`; made if missing.
      resume: continue from the folder's latest readable checkpoint (from the start if it has
        none). All settings must be the same, but `epochs` may grow.
      quiet: no progress bar and, where output is no terminal, no line per epoch.
      tensorboard: also write TensorBoard events.
      keep: latest checkpoints kept, besides the best.
      stop_at: stop and save after this many steps of the run, before its end.
      runner: "shard_map" or "pmap" run the same step with the same numbers.
      devices: the devices to train on; default: all.
      on_metrics: called in process 0 with the step and the row of metrics of each epoch; an
        exception in it is told in a line, and training goes on.
      say: where lines for the user go: warnings and, without a progress bar, a line per epoch.

    Returns:
      `Trained`.

    Raises:
      FolderInUseError: if another process trains in the folder (a ValueError).
      ValueError: if the folder holds another run, or the experiment's parts do not fit each other,
        the data or the devices.
      CheckpointError: if a run is to be continued and none of its checkpoints can be read.
      NonFiniteLossError: if the loss becomes NaN or infinite.
      Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
      LostProcessError: if another process of the run has ended.

    Example:
      >>> import tempfile
      >>> from jaxrobust.experiment import Experiment, Validation, use
      >>> from jaxrobust.training import train
      >>> experiment = Experiment(
      ...     name="small", data=use("synthetic", size=8, train=32, test=8),
      ...     model=use("digits_cnn", width=2), objective=use("trades", beta=1.0, steps=1),
      ...     threat=use("linf", eps=0.1), epochs=1, batch_size=16, validation=Validation(size=0))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     run = train(experiment, f"{folder}/run", quiet=True,
      ...         on_metrics=lambda step, row: print(step, row["epoch"]))
      2 1
    """
    folder = run_folder(workdir)
    say = say if is_first() else lambda line: None
    as_count(keep, name="keep")
    members = [Member(experiment, folder, keep=keep, on_metrics=on_metrics, say=say)]
    group = Alone(devices, runner=runner)
    options: dict[str, Any] = {"quiet": quiet, "tensorboard": tensorboard, "say": say}
    (trained,) = _train([experiment], members, group, resume=resume, stop_at=stop_at, **options)
    if isinstance(trained, NonFiniteLossError):
        raise trained
    return trained


def train_many(
    experiments: Sequence[Experiment],
    workdirs: Sequence[Folder],
    *,
    resume: bool = False,
    at_once: int | None = None,
    quiet: bool = False,
    tensorboard: bool = False,
    keep: int = 2,
    stop_at: int | None = None,
    devices: Sequence[Any] | None = None,
    on_metrics: Sequence[Listener] | None = None,
    say: Callable[[str], None] = tell,
) -> list[Trained | NonFiniteLossError]:
    """Trains experiments that are `alike` in one program, each to a folder of its own.

    The step is mapped over the experiments; their axis is split over as many devices as divide
    their number, and each batch over the rest. A folder then holds what `train` leaves there, with
    the same numbers to rounding, but checkpoints only of validated epochs and the last. A group
    that was interrupted can be continued as a group, and each of its runs by `train`.

    Args:
      experiments: what to train.
      workdirs: a folder for each.
      resume: continue from the latest step of which every folder has a readable checkpoint (from
        the start if no folder has any). All settings must be the same, but `epochs` may grow.
      at_once: how many of a device's experiments are vectorised (`jax.vmap`), the others follow
        in a loop; default: all, on CPU (where convolutions of several kernels are slow) one.
      quiet: no progress bar and, where output is no terminal, no line per epoch.
      tensorboard: also write TensorBoard events.
      keep: latest checkpoints kept, besides the best; at least 2, because an interruption may find
        some runs saved and others not yet.
      stop_at: stop and save after this many steps, before the end.
      devices: the devices of this process to train on; default: all.
      on_metrics: for each experiment what is called with the step and the row of metrics of each
        of its epochs; see `train`.
      say: where lines for the user go: warnings and, without a progress bar, a line per epoch.

    Returns:
      For each `Trained`, whose `seconds` are its share; or the error, where the loss became NaN or
      infinite, which costs the others nothing.

    Raises:
      FolderInUseError: if another process trains in one of the folders (a ValueError).
      ValueError: if the experiments are not alike, a folder holds another run, the parts do not fit
        each other, the data or the devices, or there are several processes.
      CheckpointError: if the folders have checkpoints, but none of one step that can be read.
      Interrupted: after SIGTERM or Ctrl-C, once all states are saved.

    Example:
      >>> import tempfile
      >>> from dataclasses import replace
      >>> from jaxrobust.experiment import Experiment, Validation, use
      >>> from jaxrobust.training import train_many
      >>> base = Experiment(
      ...     name="beta 1", data=use("synthetic", size=8, train=32, test=8),
      ...     model=use("digits_cnn", width=2), objective=use("trades", beta=1.0, steps=1),
      ...     threat=use("linf", eps=0.1), epochs=1, batch_size=16, validation=Validation(size=0))
      >>> both = [base, replace(base, name="beta 6", objective=use("trades", beta=6.0, steps=1))]
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     runs = train_many(both, [f"{folder}/1", f"{folder}/6"], quiet=True)
      >>> [int(run.state.step) for run in runs]
      [2, 2]
    """
    experiments, folders = list(experiments), [run_folder(w) for w in workdirs]
    listeners = [None] * len(experiments) if on_metrics is None else list(on_metrics)
    _check_group(experiments, folders, listeners)
    as_count(keep, name="keep", least=2)
    at_once = None if at_once is None else as_count(at_once, name="at_once")
    members = [
        Member(experiment, folder, keep=keep, on_metrics=listener, say=say)
        for experiment, folder, listener in zip(experiments, folders, listeners, strict=True)
    ]
    group = Together(len(members), devices, at_once)
    options: dict[str, Any] = {"quiet": quiet, "tensorboard": tensorboard, "say": say}
    return _train(experiments, members, group, resume=resume, stop_at=stop_at, **options)


def alike(first: Experiment, other: Experiment) -> bool:
    """Whether two experiments can be trained by one compiled program.

    Args:
      first: an experiment.
      other: another one.

    Returns:
      True if they differ at most in their names, their seeds and the numbers of objective and
      threat (such as `beta` and `eps`).
    """
    equal = {field.name for field in fields(first)} - {"name", "seed", "objective", "threat"}
    if any(getattr(first, name) != getattr(other, name) for name in equal):
        return False
    parts = [[e.build(part) for part in ("objective", "threat")] for e in (first, other)]
    structures: list[Any] = [jax.tree.structure(part) for part in parts]
    # Structures of classes with the same fields are equal to JAX; their texts name the classes.
    return structures[0] == structures[1] and str(structures[0]) == str(structures[1])


def _train(
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
    where = f"its last checkpoint is of step {saved[-1]}" if saved else "it has no checkpoint yet"
    reason = first_line(error, longest=200)
    return (
        f"another process of {name} has ended, so process {jax.process_index()} ends too "
        f"({reason}); {where}: start all processes again with --resume"
    )


def _check_group(
    experiments: Sequence[Experiment],
    folders: Sequence[epath.Path],
    listeners: Sequence[Listener | None],
) -> None:
    """Checks that experiments can be trained together.

    Raises:
      ValueError: if they cannot.
    """
    if not experiments or len(experiments) != len(folders):
        raise ValueError(
            f"workdirs must name a folder for each of at least one experiment, got "
            f"{len(experiments)} experiments and {len(folders)} folders"
        )
    if len(listeners) != len(experiments):
        raise ValueError(
            f"on_metrics must have a listener for each of the {len(experiments)} experiments, got "
            f"{len(listeners)}"
        )
    if len(set(folders)) < len(folders):
        raise ValueError(f"workdirs must be different folders, got {', '.join(map(str, folders))}")
    if jax.process_count() > 1:
        raise ValueError("experiments are trained together by one process; there are several")
    first = experiments[0]
    for other in experiments[1:]:
        if not alike(first, other):
            raise ValueError(
                "experiments must differ in names, seeds and numbers of objective and threat "
                f"only; {other.name!r} differs from {first.name!r} in more"
            )
