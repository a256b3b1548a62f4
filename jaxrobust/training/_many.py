"""Several runs that differ in numbers only, trained as one compiled program."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.convolutions import compiler_options
from jaxrobust.devices import AXIS, bytes_per_device, check_split, replicated
from jaxrobust.experiment import Experiment
from jaxrobust.inputs import as_count
from jaxrobust.storage import Folder, run_folder
from jaxrobust.training._constants import check_constants
from jaxrobust.training._folder import check_free, claim
from jaxrobust.training._interrupt import Interrupted, StopRequest
from jaxrobust.training._lock import holding
from jaxrobust.training._loop import Trained
from jaxrobust.training._members import MEMBERS, MemberData, MemberRun, member_data, stacked
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._prepare import Validator, check_model, lowered, on_device
from jaxrobust.training._reporting import TrainingBar, epoch_line, tell
from jaxrobust.training._runners import share
from jaxrobust.training._runs import build_model
from jaxrobust.training._settings import step_settings
from jaxrobust.training._state import TrainState, create_states
from jaxrobust.training._step import Metrics, StepSettings
from jaxrobust.training._watch import NonFiniteLossError


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
    structures = [
        [jax.tree.structure(e.build(part)) for part in ("objective", "threat")]
        for e in (first, other)
    ]
    return structures[0] == structures[1]


def train_many(
    experiments: Sequence[Experiment],
    workdirs: Sequence[Folder],
    *,
    at_once: int | None = None,
    quiet: bool = False,
    keep: int = 2,
    devices: Sequence[Any] | None = None,
    say: Callable[[str], None] = tell,
) -> list[Trained | NonFiniteLossError]:
    """Trains experiments that are `alike` in one program, each to a folder of its own.

    The step is mapped over the experiments; their axis is split over as many devices as divide
    their number, and each batch over the rest. A folder then holds what `train` leaves there, with
    the same numbers to rounding, but checkpoints only of validated epochs and the last; `train`
    with `resume=True` continues a run that was interrupted.

    Args:
      experiments: what to train.
      workdirs: a new folder for each.
      at_once: how many of a device's experiments are vectorised (`jax.vmap`), the others follow
        in a loop; default: all, on CPU (where convolutions of several kernels are slow) one.
      quiet: no progress bar and, where output is no terminal, no line per epoch.
      keep: latest checkpoints kept, besides the best.
      devices: the devices of this process to train on; default: all.
      say: where lines for the user go: warnings and, without a progress bar, a line per epoch.

    Returns:
      For each `Trained`, whose `seconds` are its share; or the error, where the loss became NaN or
      infinite, which costs the others nothing.

    Raises:
      FolderInUseError: if another process trains in one of the folders (a ValueError).
      ValueError: if the experiments are not alike, a folder holds a run, the parts do not fit each
        other, the data or the devices, or there are several processes.
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
    first = _checked(experiments, folders)
    as_count(keep, name="keep")
    at_once = None if at_once is None else as_count(at_once, name="at_once")
    with holding(folders, say=say):
        for folder, experiment in zip(folders, experiments, strict=True):
            check_free(folder, experiment, resume=False, say=say)
        made = _Made.of(experiments, devices, at_once, say)
        runs = []
        for folder, experiment, validate in zip(folders, experiments, made.validators, strict=True):
            claim(folder, experiment)
            check_constants(folder, made.model, first=True)
            runs.append(
                MemberRun(experiment, folder, made.data.steps_per_epoch, keep, validate, say)
            )
        return _trained(made, runs, first, quiet=quiet, say=say)


class _Made(NamedTuple):
    """What the loop works with; the axis of members is first in states and parts."""

    mesh: Mesh
    data: MemberData
    model: Any
    states: TrainState
    parts: tuple[Any, Any, Any]  # objectives, threats, and the network of all
    learning_rate: optax.Schedule
    validators: list[Validator]
    traced: Any  # the step

    @classmethod
    def of(
        cls,
        experiments: list[Experiment],
        devices: Sequence[Any] | None,
        at_once: int | None,
        say: Callable[[str], None],
    ) -> "_Made":
        """Reads the data, builds everything and traces the step.

        Raises:
          ValueError: if the parts do not fit each other, the data or the devices.
        """
        first = experiments[0]
        mesh = _mesh(len(experiments), devices)
        check_split(first.batch_size, mesh, microbatches=first.microbatches)
        data = member_data(experiments, mesh)
        dataset, steps_per_epoch = data.dataset, data.steps_per_epoch
        model = build_model(first, dataset.num_classes)
        optimizer, learning_rate = build_optimizer(first, steps_per_epoch)
        states = create_states(experiments, model, optimizer, dataset.image_shape)
        check_model(first, model, dataset, mesh, say=say)
        built = [on_device((e.build("objective"), e.build("threat"))) for e in experiments]
        validators = [
            Validator(e, held_out, threat)
            for e, held_out, (_, threat) in zip(experiments, data.held_out, built, strict=True)
        ]
        validators[0].check(model, member(states, 0))
        states = jax.device_put(states, NamedSharding(mesh, P(MEMBERS)))
        parts = (*stacked(built, mesh), replicated(model, mesh))
        settings = step_settings(first, optimizer, dataset, steps_per_epoch)
        arguments = states, data.images, data.labels, data.orders(0), *parts
        traced = lowered(_make_step(settings, mesh, at_once), arguments, name=first.name)
        return cls(mesh, data, model, states, parts, learning_rate, validators, traced)


def _trained(
    made: _Made,
    runs: list[MemberRun],
    first: Experiment,
    *,
    quiet: bool,
    say: Callable[[str], None],
) -> list[Trained | NonFiniteLossError]:
    """The loop over the steps of all members."""
    data, model, states, program = made.data, made.model, made.states, None
    step, steps_per_epoch = 0, data.steps_per_epoch
    last = first.epochs * steps_per_epoch
    bar = TrainingBar(f"{len(runs)} x {first.name}", last, done=0, quiet=quiet)
    started = time.perf_counter()
    with StopRequest() as stop:
        try:
            while step < last and stop.received is None:
                epoch, metrics = step // steps_per_epoch, []
                rest_of_step = data.images, data.labels, data.orders(epoch), *made.parts
                if program is None:
                    program = made.traced.compile(compiler_options())
                    taken = {
                        "devices": made.mesh.size,
                        "members": len(runs),
                        **bytes_per_device(program),
                    }
                while step < (epoch + 1) * steps_per_epoch and stop.received is None:
                    states, now = program(states, *rest_of_step)
                    metrics.append(now)
                    jax.block_until_ready(metrics[-2:-1])  # not further ahead than one step
                    step += 1
                    bar.update(step, {})
                done = step % steps_per_epoch == 0
                validated = done and ((epoch + 1) % first.validation.every == 0 or step == last)
                host = jax.device_get(states) if validated or stop.received is not None else None
                rate = float(made.learning_rate(step - 1))
                more = {"learning_rate": rate, **taken} if done else None
                kept = []
                for number, (run, rows) in enumerate(_of_each(runs, metrics)):
                    state = None if host is None else member(host, number)
                    run.see(step, rows, more)
                    kept.append(run.keep(step, model, state, stop, validated=validated))
                written = [row for row in kept if row is not None]
                if written and not (quiet or bar.visible):
                    say(epoch_line(first, written, last=last))
            host = jax.device_get(states)
            for number, run in enumerate(runs if last == 0 else []):
                run.keep(0, model, member(host, number), stop, validated=False)
        finally:
            with stop.shielded():
                bar.close()
                for run in runs:
                    run.close()
    if stop.received is not None and step < last:
        where = f"{len(runs)} runs stopped by signal {stop.received}; saved step {step} of {last}"
        hint = "continue each with jaxrobust train EXPERIMENT --workdir ITS_FOLDER --resume"
        raise Interrupted(where, hint, stop.received)
    seconds = (time.perf_counter() - started) / len(runs)
    return [
        run.failure or Trained(member(host, n), model, run.folder, seconds)
        for n, run in enumerate(runs)
    ]


def _checked(experiments: list[Experiment], folders: list[epath.Path]) -> Experiment:
    if not experiments or len(experiments) != len(folders):
        raise ValueError(
            f"workdirs must name a folder for each of at least one experiment, got "
            f"{len(experiments)} experiments and {len(folders)} folders"
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
    return first


def _mesh(members: int, devices: Sequence[Any] | None) -> Mesh:
    """As many devices over the members as divide their number, the rest over the batch."""
    devices = jax.devices() if devices is None else list(devices)
    over = math.gcd(members, len(devices))
    shape, types = (over, len(devices) // over), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, (MEMBERS, AXIS), axis_types=types, devices=devices)


def _make_step(settings: StepSettings, mesh: Mesh, at_once: int | None) -> Callable[..., Any]:
    """The compiled step of all members; states and metrics have their axis first."""
    default = 1 if mesh.devices.flat[0].platform == "cpu" else sys.maxsize

    def step(
        states: TrainState,
        images: Any,
        labels: Any,
        orders: Any,
        objectives: Any,
        threats: Any,
        network: Any,
    ) -> tuple[TrainState, Metrics]:
        def one(member: Any) -> tuple[TrainState, Metrics]:
            state, order, objective, threat = member
            return share(settings, state, images, labels, order, objective, threat, network)

        members, count = (states, orders, objectives, threats), at_once or default
        if count >= len(orders):
            return jax.vmap(one)(members)
        return jax.lax.map(one, members, batch_size=None if count == 1 else count)

    each = P(MEMBERS)
    sharded = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(each, P(), P(), each, each, each, P()),
        out_specs=each,
        check_vma=False,
    )
    return jax.jit(sharded, donate_argnums=0)


def member(states: TrainState, number: int) -> TrainState:
    return jax.tree.map(lambda leaf: np.asarray(leaf[number]), states)


def _of_each(
    runs: list[MemberRun], metrics: list[Metrics]
) -> list[tuple[MemberRun, list[dict[str, float]]]]:
    """From a row per step with an axis of members: each member with its row per step."""
    rows = jax.device_get(metrics)
    return [(run, [{k: v[n] for k, v in r.items()} for r in rows]) for n, run in enumerate(runs)]
