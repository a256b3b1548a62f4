"""From an experiment to the settings of its train step."""

from typing import Protocol

import optax

from jaxrobust.experiment import Experiment
from jaxrobust.training._step import StepSettings
from jaxrobust.training._updates import Averaging

PARTS_THAT_CHANGE = ("objective.", "threat.", "transform.")


class Described(Protocol):
    """What a step must know of a data set: a `Dataset`, or its description alone."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(h, w, c)`."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""

    @property
    def max_value(self) -> int:
        """The uint8 value that means 1.0."""


def step_settings(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    dataset: Described,
    steps_per_epoch: int,
) -> StepSettings:
    """What an experiment's train step is made of, on images as rows of bytes.

    Args:
      experiment: to be trained.
      optimizer: of `build_optimizer`.
      dataset: what is trained on, or a description of it.
      steps_per_epoch: for the schedules.

    Returns:
      `StepSettings`.
    """
    paths = [path for path in experiment.schedules if path.startswith(PARTS_THAT_CHANGE)]
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
        optimizer=optimizer,
        augmentations=experiment.build("augment"),
        batch_augmentations=experiment.build("batch_augment"),
        image_shape=tuple(dataset.image_shape),
        num_classes=dataset.num_classes,
        transform=experiment.build("transform"),
        max_value=dataset.max_value,
        global_batch_norm=experiment.batch_norm == "global",
        averaging=averaging,
        microbatches=experiment.microbatches,
        schedules=tuple((path, experiment.schedule(path, steps_per_epoch)) for path in paths),
        awp=awp,
    )
