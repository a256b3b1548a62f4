"""A finished (or interrupted) run read back from its folder."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrobust.data import Dataset
from jaxrobust.experiment import Experiment
from jaxrobust.models import logits_fn
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._folder import read_config
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._state import (
    build_model,
    create_state,
    evaluated_variables,
)


class Run(NamedTuple):
    """A trained network with what it was trained on.

    Attributes:
      experiment: the configuration.
      dataset: the data, with its test set.
      logits_fn: images -> logits, in evaluation mode, of the evaluated parameters.
      step: of the checkpoint.
    """

    experiment: Experiment
    dataset: Dataset
    logits_fn: Any
    step: int


def load_run(
    workdir: str | pathlib.Path,
    *,
    checkpoint: str = "best",
    say: Callable[[str], None] = print,
) -> Run:
    """Reads a run's network from its folder.

    Args:
      workdir: the run's folder.
      checkpoint: "best" by validation on held-out training data (the last, if nothing was held
        out), or "last".
      say: told about checkpoints that cannot be read.

    Returns:
      `Run`.

    Raises:
      ValueError: if the folder holds no run, or `checkpoint` is neither "best" nor "last".
      CheckpointError: if no checkpoint can be read.
    """
    if checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be 'best' or 'last', got {checkpoint!r}")
    workdir = pathlib.Path(workdir)
    experiment = read_config(workdir)
    dataset = experiment.build("data")
    model = build_model(experiment, dataset.num_classes)
    optimizer, _ = build_optimizer(experiment, 1)
    target = create_state(experiment, model, optimizer, dataset.image_shape)
    checkpoints = Checkpoints(workdir / "checkpoints", warn=say)
    try:
        restore = checkpoints.restore_best if checkpoint == "best" else checkpoints.restore_last
        step, state = restore(jax.device_put(target, jax.devices()[0]))
    finally:
        checkpoints.close()
    return Run(experiment, dataset, logits_fn(model, evaluated_variables(state)), step)
