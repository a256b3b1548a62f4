"""The training loop, read from top to bottom."""

import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from jaxrobust.convolutions import compiler_options
from jaxrobust.data import Dataset, Streamed
from jaxrobust.evaluation import PGD, evaluate
from jaxrobust.experiment import Experiment
from jaxrobust.losses import margin
from jaxrobust.models import logits_fn
from jaxrobust.processes import LostProcessError, from_first, is_first
from jaxrobust.training._bucket import Folder, run_folder
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._devices import check_split, device_mesh, replicated
from jaxrobust.training._folder import claim
from jaxrobust.training._footprint import footprint
from jaxrobust.training._interrupt import Interrupted, StopRequest
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._reporting import TrainingBar
from jaxrobust.training._runners import Runner, make_train_step
from jaxrobust.training._runs import build_model
from jaxrobust.training._settings import step_settings
from jaxrobust.training._state import TrainState, create_state, evaluated_variables
from jaxrobust.training._supply import make_supply
from jaxrobust.training._together import StopVote, check_shared, lost_message, open_metrics
from jaxrobust.training._watch import Watch


class Trained(NamedTuple):
    """A finished run.

    Attributes:
      state: after the last step.
      model: the Flax network.
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
    say: Callable[[str], None] = print,
) -> Trained:
    """Trains an experiment; the folder holds configuration, metrics and checkpoints.

    A checkpoint is written after every epoch, and where SIGTERM or Ctrl-C arrives. On one
    device a resumed run continues bit for bit as if it had never stopped. Of several processes
    (`join_processes`) all must call this with the same arguments and a folder that they share;
    process 0 writes the metrics, a signal to any of them stops all.

    Args:
      experiment: what to train.
      workdir: the run's folder, or `gs://bucket/folder`; made if missing.
      resume: continue from the folder's latest readable checkpoint (from the start if it has
        none).
      quiet: no progress bar.
      tensorboard: also write TensorBoard events.
      keep: latest checkpoints kept, besides the best.
      stop_at: stop and save after this many steps of the run, before its end.
      runner: "shard_map" or "pmap" run the same step with the same numbers.
      devices: the devices to train on; default: all.
      say: where lines for the user go.

    Returns:
      `Trained`.

    Raises:
      ValueError: if the folder holds another run, or the batch does not split over the devices.
      NonFiniteLossError: if the loss becomes NaN or infinite.
      Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
      LostProcessError: if another process of the run has ended.
    """
    # ---- the run's folder; of several processes the first one writes and speaks -------------
    workdir = run_folder(workdir)
    say = say if is_first() else lambda line: None
    from_first(lambda: claim(workdir, experiment, resume=resume))
    check_shared(workdir)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=keep, warn=say)

    # ---- data: on every device, as uint8; or streamed ---------------------------------------
    dataset = experiment.build("data")
    rest, held_out = dataset.held_out(experiment.validation.size, seed=experiment.seed)
    mesh = device_mesh(devices)
    check_split(experiment.batch_size, mesh, microbatches=experiment.microbatches)
    supply = make_supply(experiment, rest, mesh, runner=runner)
    steps_per_epoch = supply.steps_per_epoch

    # ---- model, optimizer, state ------------------------------------------------------------
    model = build_model(experiment, dataset.num_classes)
    optimizer, schedule = build_optimizer(experiment, steps_per_epoch)
    objective, threat = (on_device(experiment.build(part)) for part in ("objective", "threat"))
    local_threat, (objective, threat) = threat, replicated((objective, threat), mesh)
    state = replicated(create_state(experiment, model, optimizer, dataset.image_shape), mesh)
    if resume and checkpoints.steps():
        restored_step, state = checkpoints.restore_last(state)
        say(f"resuming {experiment.name} at step {restored_step}")

    # ---- the step ---------------------------------------------------------------------------
    settings = step_settings(experiment, model, optimizer, dataset, steps_per_epoch)
    streamed = isinstance(rest, Streamed)
    train_step: Any = make_train_step(settings, mesh, runner=runner, streamed=streamed)
    program: Any = None
    validate = make_validation(experiment, held_out, local_threat)

    # ---- the loop ---------------------------------------------------------------------------
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
                    arguments = state, *supply.at(step), objective, threat
                    if program is None:
                        program = train_step.lower(*arguments).compile(compiler_options())
                        taken = {"devices": mesh.size, **footprint(program)}
                    state, metrics = program(*arguments)
                    step += 1
                    asked = vote.cast(stop.received)
                    watch.see(step, metrics)
                    bar.update(step, watch.figures())
                watch.flush()
                if step % steps_per_epoch == 0:
                    row = watch.epoch_row(learning_rate=float(schedule(step - 1)))
                    validation = None
                    if (epoch + 1) % experiment.validation.every == 0 or step == last:
                        validation = validate(model, state)
                        row.update({"validation_" + k: v for k, v in validation.items()})
                    metrics_file.write(step, {"epoch": epoch + 1, **row, **taken})
                    bar.update(step, watch.figures())
                    score = None if not validation else validation["robust_accuracy"]
                    checkpoints.save(step, state, validation=score)
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
            bar.close()
            supply.close()
            metrics_file.close()
            if not lost:  # closing waits for all processes
                checkpoints.close()
    if asked is not None and step < last:
        message = f"{experiment.name} stopped by signal {asked}; saved step {step} of {last} in {workdir}"  # fmt: skip  # noqa: E501
        raise Interrupted(f"{message}, continue with --resume", asked)
    return Trained(state, model, workdir, time.perf_counter() - started)


def make_validation(
    experiment: Experiment, held_out: Dataset, threat: Any
) -> Callable[[Any, TrainState], dict[str, float]]:
    """Clean and margin-PGD accuracy on held-out training examples; empty without any."""
    images, labels = held_out.floats("test")
    attack = PGD(threat=threat, steps=experiment.validation.steps, loss=margin)

    def validate(model: Any, state: TrainState) -> dict[str, float]:
        if not len(labels):
            return {}
        result = evaluate(
            logits_fn(model, jax.device_get(evaluated_variables(state))),
            images,
            labels,
            attacks={"margin_pgd": attack},
            batch_size=experiment.evaluation.batch_size,
            seed=experiment.seed,
        )
        return {"accuracy": result.clean.value, "robust_accuracy": result.worst.value}

    return validate


def on_device(tree: Any) -> Any:
    """Python numbers as float32 arrays: their values are then no part of the compiled program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
