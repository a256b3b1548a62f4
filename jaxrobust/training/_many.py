"""Several runs that differ in numbers only, trained as one compiled program."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.convolutions import compiler_options
from jaxrobust.data import Dataset
from jaxrobust.experiment import Experiment
from jaxrobust.training._bucket import Folder, run_folder
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._devices import AXIS, replicated
from jaxrobust.training._feed import Feed
from jaxrobust.training._folder import claim
from jaxrobust.training._footprint import footprint
from jaxrobust.training._interrupt import Interrupted, StopRequest
from jaxrobust.training._loop import Trained, make_validation, on_device
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._reporting import MetricsFile, TrainingBar
from jaxrobust.training._rows import image_rows
from jaxrobust.training._runners import share
from jaxrobust.training._runs import build_model
from jaxrobust.training._settings import step_settings
from jaxrobust.training._state import TrainState, create_states
from jaxrobust.training._step import Metrics, StepSettings
from jaxrobust.training._watch import NonFiniteLossError, Watch

MEMBERS = "members"


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
    say: Callable[[str], None] = print,
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
      quiet: no progress bar.
      keep: latest checkpoints kept, besides the best.
      devices: the devices of this process to train on; default: all.
      say: where lines for the user go.

    Returns:
      For each `Trained`, whose `seconds` are its share; or the error, where the loss became NaN or
      infinite, which costs the others nothing.

    Raises:
      ValueError: if the experiments are not alike, a folder holds a run, the batch does not split
        over the devices, or there are several processes.
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
    for folder, experiment in zip(folders, experiments, strict=True):
        claim(folder, experiment, resume=False)
    mesh = _mesh(len(experiments), jax.devices() if devices is None else list(devices))

    data = _data(experiments, mesh)
    dataset, steps_per_epoch = data.dataset, data.steps_per_epoch

    # ---- models, states, the step -----------------------------------------------------------
    model = build_model(first, dataset.num_classes)
    optimizer, schedule = build_optimizer(first, steps_per_epoch)
    states = create_states(experiments, model, optimizer, dataset.image_shape)
    states = jax.device_put(states, NamedSharding(mesh, P(MEMBERS)))
    built = [on_device((e.build("objective"), e.build("threat"))) for e in experiments]
    parts = _stacked(built, mesh)
    settings = step_settings(first, model, optimizer, dataset, steps_per_epoch)
    train_step: Any = _make_step(settings, mesh, at_once)
    program: Any = None
    runs = [
        _Run(e, f, steps_per_epoch, keep, make_validation(e, held_out, threat), say)
        for e, f, held_out, (_, threat) in zip(
            experiments, folders, data.held_out, built, strict=True
        )
    ]

    # ---- the loop ---------------------------------------------------------------------------
    step, last = 0, first.epochs * steps_per_epoch
    bar = TrainingBar(f"{len(runs)} x {first.name}", last, done=0, quiet=quiet)
    started = time.perf_counter()
    with StopRequest() as stop:
        try:
            while step < last and stop.received is None:
                epoch, metrics = step // steps_per_epoch, []
                rest_of_step = data.images, data.labels, data.orders(epoch), *parts
                if program is None:
                    program = train_step.lower(states, *rest_of_step).compile(compiler_options())
                    taken = {"devices": mesh.size, "members": len(runs), **footprint(program)}
                while step < (epoch + 1) * steps_per_epoch and stop.received is None:
                    states, now = program(states, *rest_of_step)
                    metrics.append(now)
                    jax.block_until_ready(metrics[-2:-1])  # not further ahead than one step
                    step += 1
                    bar.update(step, {})
                done = step % steps_per_epoch == 0
                validated = done and ((epoch + 1) % first.validation.every == 0 or step == last)
                host = jax.device_get(states) if validated or stop.received is not None else None
                more = {"learning_rate": float(schedule(step - 1)), **taken} if done else None
                for number, (run, rows) in enumerate(_of_each(runs, metrics)):
                    state = None if host is None else _member(host, number)
                    run.see(step, rows, more)
                    run.keep(step, model, state, validated=validated)
        finally:
            bar.close()
            for run in runs:
                run.close()
    if stop.received is not None and step < last:
        where = f"{len(runs)} runs stopped by signal {stop.received}; saved step {step} of {last}"
        raise Interrupted(f"{where}, continue each with --resume", stop.received)
    seconds = (time.perf_counter() - started) / len(runs)
    host = jax.device_get(states)
    return [
        run.failure or Trained(_member(host, n), model, run.folder, seconds)
        for n, run in enumerate(runs)
    ]


class _Data(NamedTuple):
    """What the members train on: of each seed its examples, one seed after the other."""

    dataset: Dataset
    held_out: list[Dataset]  # of each member
    images: Any
    labels: Any
    orders: Callable[[int], Any]  # of an epoch, for each member `[members, steps, batch]`
    steps_per_epoch: int


def _data(experiments: list[Experiment], mesh: Mesh) -> _Data:
    first = experiments[0]
    dataset = first.build("data")
    seeds = list(dict.fromkeys(experiment.seed for experiment in experiments))
    place = [seeds.index(experiment.seed) for experiment in experiments]
    splits = [dataset.held_out(first.validation.size, seed=seed) for seed in seeds]
    feeds = [Feed.of(first, rest) for rest, _ in splits]
    draw = jax.jit(feeds[0].order)

    def orders(epoch: int) -> Any:
        keys = [jax.random.fold_in(jax.random.key(seed), 1) for seed in seeds]
        each = [draw(key, epoch) + n * len(feeds[0].labels) for n, key in enumerate(keys)]
        return _stacked([each[n] for n in place], mesh)

    return _Data(
        dataset,
        [splits[n][1] for n in place],
        replicated(np.concatenate([image_rows(feed.images) for feed in feeds]), mesh),
        replicated(np.concatenate([feed.labels for feed in feeds]), mesh),
        orders,
        feeds[0].steps_per_epoch,
    )


class _Run:
    """One member: its files, its metrics, and its failure if it has one."""

    def __init__(
        self,
        experiment: Experiment,
        folder: epath.Path,
        steps_per_epoch: int,
        keep: int,
        validate: Callable[[Any, TrainState], dict[str, float]],
        say: Callable[[str], None],
    ) -> None:
        self.folder, self._validate = folder, validate
        self.failure: NonFiniteLossError | None = None
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=keep, warn=say)
        self._metrics = MetricsFile(folder / "metrics.jsonl", resume_step=0)
        self._watch = Watch(experiment, self._checkpoints, steps_per_epoch)
        self._steps_per_epoch = steps_per_epoch
        self._row: dict[str, float] = {}

    def see(self, step: int, rows: list[dict[str, float]], more: dict[str, float] | None) -> None:
        """The metrics of the last steps; where an epoch is done, its row has some more."""
        if self.failure is not None:
            return
        try:
            for number, row in enumerate(rows, step - len(rows) + 1):
                self._watch.see(number, row)
            self._watch.flush()
        except NonFiniteLossError as error:
            self.failure = error
            return
        if more is not None:
            epoch = step // self._steps_per_epoch
            self._row = {"epoch": epoch, **self._watch.epoch_row(**more)}

    def keep(self, step: int, model: Any, state: TrainState | None, *, validated: bool) -> None:
        """Writes the epoch's row, and the state if there is one."""
        if self.failure is not None:
            return
        found = self._validate(model, state) if validated and state is not None else {}
        if self._row:
            row, self._row = self._row, {}
            self._metrics.write(step, row | {f"validation_{k}": v for k, v in found.items()})
        if state is not None:
            self._checkpoints.save(step, state, validation=found.get("robust_accuracy"))

    def close(self) -> None:
        """Closes the files."""
        self._metrics.close()
        self._checkpoints.close()


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


def _mesh(members: int, devices: list[Any]) -> Mesh:
    """As many devices over the members as divide their number, the rest over the batch."""
    over = math.gcd(members, len(devices))
    shape, types = (over, len(devices) // over), (AxisType.Auto,) * 2
    return jax.make_mesh(shape, (MEMBERS, AXIS), axis_types=types, devices=devices)


def _make_step(settings: StepSettings, mesh: Mesh, at_once: int | None) -> Callable[..., Any]:
    """The compiled step of all members; states and metrics have their axis first."""
    default = 1 if mesh.devices.flat[0].platform == "cpu" else sys.maxsize

    def step(
        states: TrainState, images: Any, labels: Any, orders: Any, objectives: Any, threats: Any
    ) -> tuple[TrainState, Metrics]:
        def one(member: Any) -> tuple[TrainState, Metrics]:
            state, order, objective, threat = member
            return share(settings, state, images, labels, order, objective, threat)

        members, count = (states, orders, objectives, threats), at_once or default
        if count >= len(orders):
            return jax.vmap(one)(members)
        return jax.lax.map(one, members, batch_size=None if count == 1 else count)

    each = P(MEMBERS)
    sharded = jax.shard_map(
        step,
        mesh=mesh,
        in_specs=(each, P(), P(), each, each, each),
        out_specs=each,
        check_vma=False,
    )
    return jax.jit(sharded, donate_argnums=0)


def _stacked(trees: list[Any], mesh: Mesh) -> Any:
    """Trees of equal structure as one, with the axis of members first."""
    tree = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    return jax.device_put(tree, NamedSharding(mesh, P(MEMBERS)))


def _member(states: TrainState, number: int) -> TrainState:
    return jax.tree.map(lambda leaf: np.asarray(leaf[number]), states)


def _of_each(runs: list[_Run], metrics: list[Metrics]) -> list[tuple[_Run, list[dict[str, float]]]]:
    """From a row per step with an axis of members: each member with its row per step."""
    rows = jax.device_get(metrics)
    return [(run, [{k: v[n] for k, v in r.items()} for r in rows]) for n, run in enumerate(runs)]
