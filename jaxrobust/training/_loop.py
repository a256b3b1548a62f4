"""The training loop, read from top to bottom."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from jaxrobust.convolutions import compiler_options
from jaxrobust.devices import bytes_per_device, device_mesh
from jaxrobust.experiment import Experiment
from jaxrobust.inputs import as_count
from jaxrobust.processes import LostProcessError, from_first, is_first
from jaxrobust.storage import Folder, run_folder
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._constants import check_constants
from jaxrobust.training._folder import check_free, claim
from jaxrobust.training._interrupt import Interrupted, StopRequest
from jaxrobust.training._lock import holding
from jaxrobust.training._prepare import lowered, prepare
from jaxrobust.training._reporting import TrainingBar, check_board, epoch_line, tell
from jaxrobust.training._runners import Runner
from jaxrobust.training._state import TrainState
from jaxrobust.training._together import StopVote, check_shared, lost_message, open_metrics
from jaxrobust.training._watch import Watch


class Trained(NamedTuple):
    """A finished run.

    Attributes:
      state: after the last step.
      model: the network.
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
    """
    workdir = run_folder(workdir)
    say = say if is_first() else lambda line: None
    as_count(keep, name="keep")
    if stop_at is not None:
        as_count(stop_at, name="stop_at", least=0)
    if tensorboard:
        check_board(workdir)
    with contextlib.ExitStack() as opened:
        opened.enter_context(holding([workdir], say=say))
        # ---- everything is checked before the folder becomes this run's ---------------------
        goes_on = from_first(lambda: check_free(workdir, experiment, resume=resume, say=say))
        mesh = device_mesh(devices)
        made = prepare(experiment, mesh, runner=runner, say=say)
        state, supply = made.state, opened.enter_context(contextlib.closing(made.supply))
        steps_per_epoch = supply.steps_per_epoch
        traced = program = first = None
        if not goes_on:
            first = state, *supply.at(0), *made.parts
            traced = lowered(made.train_step, first, name=experiment.name)
            made.validate.check(made.model, state)
        from_first(lambda: claim(workdir, experiment))
        from_first(lambda: check_constants(workdir, made.model, first=True))
        check_shared(workdir)
        checkpoints = Checkpoints(workdir / "checkpoints", keep=keep, warn=say)
        if goes_on and checkpoints.steps():
            restored_step, state = checkpoints.restore_last(state)
            say(f"resuming {experiment.name} at step {restored_step}")

        # ---- the loop; of several processes the first one writes and speaks -----------------
        step, last = int(state.step), experiment.epochs * steps_per_epoch
        end = last if stop_at is None else min(stop_at, last)
        metrics_file = open_metrics(workdir, resume_step=step, tensorboard=tensorboard)
        bar = TrainingBar(experiment.name, last, done=step, quiet=quiet or not is_first())
        watch = Watch(experiment, checkpoints, steps_per_epoch)
        vote, asked, lost = StopVote(mesh), None, False
        started = time.perf_counter()
        with StopRequest() as stop:
            try:
                while step < end and asked is None:
                    epoch = step // steps_per_epoch
                    while step < min(end, (epoch + 1) * steps_per_epoch) and asked is None:
                        arguments = first or (state, *supply.at(step), *made.parts)
                        if program is None:
                            traced = traced or lowered(
                                made.train_step, arguments, name=experiment.name
                            )
                            program = traced.compile(compiler_options())
                            taken = {"devices": mesh.size, **bytes_per_device(program)}
                        state, metrics = program(*arguments)
                        first, step = None, step + 1
                        asked = vote.cast(stop.received)
                        watch.see(step, metrics)
                        bar.update(step, watch.figures())
                    watch.flush()
                    if step % steps_per_epoch == 0:
                        row = {"epoch": epoch + 1, **watch.epoch_row()}
                        row["learning_rate"] = float(made.learning_rate(step - 1))
                        validation = {}
                        if (epoch + 1) % experiment.validation.every == 0 or step == last:
                            validation = made.validate(made.model, state)
                        row |= {"validation_" + k: v for k, v in validation.items()} | taken
                        metrics_file.write(step, row)
                        bar.update(step, watch.figures())
                        if not (quiet or bar.visible):
                            say(epoch_line(experiment, [{"step": step, **row}], last=last))
                        score = validation.get("robust_accuracy")
                        with stop.shielded():
                            checkpoints.save(step, state, validation=score)
                with stop.shielded():
                    checkpoints.save(step, state)
                    checkpoints.wait()
            except (jax.errors.JaxRuntimeError, LostProcessError) as error:
                lost = jax.process_count() > 1
                if lost:
                    raise LostProcessError(
                        lost_message(experiment.name, checkpoints.steps(), error)
                    ) from error
                raise
            finally:
                with stop.shielded():
                    bar.close()
                    metrics_file.close()
                    if not lost:  # closing waits for all processes
                        checkpoints.close()
    if asked is not None and step < last:
        progress = (
            f"{experiment.name} stopped by signal {asked}; saved step {step} of {last} in {workdir}"
        )
        hint = f"continue with jaxrobust train EXPERIMENT --workdir {workdir} --resume"
        raise Interrupted(progress, hint, asked)
    return Trained(state, made.model, workdir, time.perf_counter() - started)
