"""The training loop, read from top to bottom."""

import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrobust.data import Dataset
from jaxrobust.evaluation import PGD, evaluate
from jaxrobust.experiment import Experiment
from jaxrobust.losses import margin
from jaxrobust.models import logits_fn
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._feed import Feed
from jaxrobust.training._folder import claim
from jaxrobust.training._interrupt import Interrupted, StopRequest
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._reporting import MetricsFile, TrainingBar
from jaxrobust.training._settings import step_settings
from jaxrobust.training._state import (
    TrainState,
    build_model,
    create_state,
    evaluated_variables,
)
from jaxrobust.training._step import device_mesh, make_train_step, replicated


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite; the message names step, batch and last checkpoint."""


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
    workdir: pathlib.Path
    seconds: float


def train(
    experiment: Experiment,
    workdir: str | pathlib.Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    keep: int = 2,
    stop_at: int | None = None,
    devices: Sequence[Any] | None = None,
    say: Callable[[str], None] = print,
) -> Trained:
    """Trains an experiment; the folder holds configuration, metrics and checkpoints.

    A checkpoint is written after every epoch, and where SIGTERM or Ctrl-C arrives. On one
    device a resumed run continues bit for bit as if it had never stopped.

    Args:
      experiment: what to train.
      workdir: the run's folder; made if missing.
      resume: continue from the folder's latest readable checkpoint (from the start if it has
        none).
      quiet: no progress bar.
      tensorboard: also write TensorBoard events.
      keep: latest checkpoints kept, besides the best.
      stop_at: stop and save after this many steps of the run, before its end.
      devices: the devices to train on; default: all.
      say: where lines for the user go.

    Returns:
      `Trained`.

    Raises:
      ValueError: if the folder holds another run, or the batch does not split over the devices.
      NonFiniteLossError: if the loss becomes NaN or infinite.
      Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
    """
    # ---- the run's folder -------------------------------------------------------------------
    workdir = pathlib.Path(workdir)
    claim(workdir, experiment, resume=resume)
    checkpoints = Checkpoints(workdir / "checkpoints", keep=keep, warn=say)

    # ---- data: on every device, as uint8 ----------------------------------------------------
    dataset = experiment.build("data")
    rest, held_out = dataset.held_out(experiment.validation.size, seed=experiment.seed)
    mesh = device_mesh(devices)
    parts = mesh.size * experiment.microbatches
    if experiment.batch_size % parts:
        raise ValueError(
            f"batch_size must be a multiple of the {mesh.size} devices times "
            f"{experiment.microbatches} microbatches, got {experiment.batch_size}"
        )
    feed = Feed.of(experiment, rest)
    images, labels = replicated((feed.images, feed.labels), mesh)
    order_of, steps_per_epoch = jax.jit(feed.order), feed.steps_per_epoch
    order_key = jax.random.fold_in(jax.random.key(experiment.seed), 1)

    # ---- model, optimizer, state ------------------------------------------------------------
    model = build_model(experiment, dataset.num_classes)
    optimizer, schedule = build_optimizer(experiment, steps_per_epoch)
    objective = on_device(experiment.build("objective"))
    threat = on_device(experiment.build("threat"))
    state = replicated(create_state(experiment, model, optimizer, dataset.image_shape), mesh)
    if resume and checkpoints.steps():
        restored_step, state = checkpoints.restore_last(state)
        say(f"resuming {experiment.name} at step {restored_step}")

    # ---- the step ---------------------------------------------------------------------------
    settings = step_settings(experiment, model, optimizer, dataset, steps_per_epoch)
    train_step = make_train_step(settings, mesh)
    validate = make_validation(experiment, held_out, threat)

    # ---- the loop ---------------------------------------------------------------------------
    step, last = int(state.step), experiment.epochs * steps_per_epoch
    end = last if stop_at is None else min(stop_at, last)
    metrics_file = MetricsFile(workdir / "metrics.jsonl", resume_step=step, tensorboard=tensorboard)
    bar = TrainingBar(experiment.name, last, done=step, quiet=quiet)
    watch = Watch(experiment, checkpoints, steps_per_epoch)
    started = time.perf_counter()
    with StopRequest() as stop:
        try:
            while step < end and stop.received is None:
                epoch = step // steps_per_epoch
                order = replicated(order_of(order_key, epoch), mesh)
                while step < min(end, (epoch + 1) * steps_per_epoch) and stop.received is None:
                    state, metrics = train_step(state, images, labels, order, objective, threat)
                    step += 1
                    watch.see(step, metrics)
                    bar.update(step, watch.figures())
                watch.flush()
                if step % steps_per_epoch == 0:
                    row = watch.epoch_row(learning_rate=float(schedule(step - 1)))
                    validation = None
                    if (epoch + 1) % experiment.validation.every == 0 or step == last:
                        validation = validate(model, state)
                        row.update({"validation_" + k: v for k, v in validation.items()})
                    metrics_file.write(step, {"epoch": epoch + 1, **row})
                    bar.update(step, watch.figures())
                    score = None if not validation else validation["robust_accuracy"]
                    checkpoints.save(step, state, validation=score)
            checkpoints.save(step, state)
        finally:
            bar.close()
            metrics_file.close()
            checkpoints.close()
    if stop.received is not None and step < last:
        message = f"{experiment.name} stopped by signal {stop.received}; saved step {step} of {last} in {workdir}"  # fmt: skip  # noqa: E501
        raise Interrupted(f"{message}, continue with --resume", stop.received)
    return Trained(state, model, workdir, time.perf_counter() - started)


class Watch:
    """Follows the metrics one step behind, so that looking at them never stalls the device."""

    def __init__(
        self, experiment: Experiment, checkpoints: Checkpoints, steps_per_epoch: int
    ) -> None:
        self._name = experiment.name
        self._batch_size = experiment.batch_size
        self._checkpoints = checkpoints
        self._steps_per_epoch = steps_per_epoch
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.perf_counter()
        self._last: dict[str, float] = {}

    def see(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes the metrics of the step just dispatched; reads those of the step before."""
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Reads what is still pending.

        Raises:
          NonFiniteLossError: if its loss is not finite.
        """
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(pending).items()}
        if not math.isfinite(values["loss"]):
            self._checkpoints.wait()
            steps = self._checkpoints.steps()
            good = f"checkpoint of step {steps[-1]} in {self._checkpoints.folder}" if steps else "none: no epoch was finished"  # fmt: skip  # noqa: E501
            raise NonFiniteLossError(
                f"the loss of {self._name} is {values['loss']} at step {step} "
                f"(batch {(step - 1) % self._steps_per_epoch} of epoch "
                f"{(step - 1) // self._steps_per_epoch + 1}); last good checkpoint: {good}"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._last = values

    def figures(self) -> dict[str, float]:
        """For the bar: the epoch's running means and the rate."""
        shown = ("loss", "accuracy", "robust_accuracy")
        count = max(self._count, 1)
        means = {name: self._sums[name] / count for name in shown if name in self._sums}
        seconds = time.perf_counter() - self._since
        return {**means, "examples_per_second": self._count * self._batch_size / seconds}

    def epoch_row(self, **more: float) -> dict[str, float]:
        """The epoch's means, and a fresh start."""
        row = {name: total / self._count for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._since
        row |= {"examples_per_second": self._count * self._batch_size / seconds, **more}
        self._sums, self._count, self._since = {}, 0, time.perf_counter()
        return row


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
