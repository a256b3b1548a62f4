"""From an experiment to the settings of its train step."""

from typing import Any

import optax

from jaxrobust.data import Dataset
from jaxrobust.experiment import Experiment
from jaxrobust.training._step import StepSettings
from jaxrobust.training._updates import Averaging


def step_settings(
    experiment: Experiment,
    model: Any,
    optimizer: optax.GradientTransformation,
    dataset: Dataset,
    steps_per_epoch: int,
) -> StepSettings:
    """What an experiment's train step is made of."""
    paths = [path for path in experiment.schedules if path.startswith(("objective.", "threat."))]
    awp = None
    if "awp" in experiment.schedules:
        awp = experiment.schedule("awp", steps_per_epoch)
    elif experiment.awp:
        awp = optax.constant_schedule(experiment.awp)
    averaging = None
    if experiment.ema_decay:
        warmup = experiment.ema_warmup
        averaging = Averaging(
            experiment.ema_decay,
            None if warmup is None else warmup * experiment.epochs * steps_per_epoch,
            experiment.ema_batch_stats,
        )
    return StepSettings(
        model=model,
        optimizer=optimizer,
        augmentations=experiment.build("augment"),
        batch_augmentations=experiment.build("batch_augment"),
        num_classes=dataset.num_classes,
        max_value=dataset.max_value,
        global_batch_norm=experiment.batch_norm == "global",
        averaging=averaging,
        microbatches=experiment.microbatches,
        schedules=tuple((path, experiment.schedule(path, steps_per_epoch)) for path in paths),
        awp=awp,
    )
