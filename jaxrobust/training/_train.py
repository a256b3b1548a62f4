"""Training from outside: one experiment, or several alike as one program."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import jax
from etils import epath

from jaxrobust.experiment import Experiment
from jaxrobust.inputs import as_count
from jaxrobust.processes import is_first
from jaxrobust.storage import Folder, run_folder
from jaxrobust.training._loop import Trained, run_group
from jaxrobust.training._member import Listener, Member, NonFiniteLossError
from jaxrobust.training._prepare import PARTS_THAT_CHANGE
from jaxrobust.training._program import Alone, Runner, Together
from jaxrobust.training._reporting import tell


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
        none). All settings of training must be the same, but `epochs` may grow.
      quiet: no progress bar and, where output is no terminal, no line per epoch.
      tensorboard: also write TensorBoard events.
      keep: latest checkpoints kept, besides the best.
      stop_at: stop and save after this many steps of the run, before its end.
      runner: "shard_map" or "pmap" run the same step with the same numbers.
      devices: the devices to train on; default: all.
      on_metrics: called in process 0 with the step and the row of metrics of each epoch; an
        exception in it is reported in a line, and training goes on.
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
    (trained,) = run_group([experiment], members, group, resume=resume, stop_at=stop_at, **options)
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
        the start if no folder has any). All settings of training must be the same, but `epochs` may
        grow.
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
    return run_group(experiments, members, group, resume=resume, stop_at=stop_at, **options)


def alike(first: Experiment, other: Experiment) -> bool:
    """Whether two experiments can be trained by one compiled program.

    Args:
      first: an experiment.
      other: another one.

    Returns:
      True if they differ at most in their names, their seeds, the numbers of objective and threat
      (such as `beta` and `eps`), and the schedules of the same values of objective, threat and
      transform.
    """
    differing = {"name", "seed", "objective", "threat", "schedules"}
    equal = {field.name for field in fields(first)} - differing
    if any(getattr(first, name) != getattr(other, name) for name in equal):
        return False
    ours, theirs = first.schedules, other.schedules
    if ours.keys() != theirs.keys():
        return False
    if any(ours[p] != theirs[p] for p in ours if not p.startswith(PARTS_THAT_CHANGE)):
        return False
    parts = [[e.build(part) for part in ("objective", "threat")] for e in (first, other)]
    structures: list[Any] = [jax.tree.structure(part) for part in parts]
    # Structures of classes with the same fields are equal to JAX; their texts name the classes.
    return structures[0] == structures[1] and str(structures[0]) == str(structures[1])


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
                "experiments must differ in names, seeds, numbers of objective and threat, and "
                f"schedules of these only; {other.name!r} differs from {first.name!r} in more"
            )
