"""The optimizer of an experiment, from Optax's parts."""

from typing import Any

import jax
import optax

from jaxrobust.experiment import Experiment

MOMENTUM = "optimizer.momentum"


def build_optimizer(
    experiment: Experiment, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer with its schedules and weight decay, and the learning rate for the log.

    Args:
      experiment: whose optimizer.
      steps_per_epoch: for the schedules, which are written in epochs.

    Returns:
      The Optax transformation, and the learning rate as a function of the step.
    """
    schedule = experiment.schedule("learning_rate", steps_per_epoch)
    if MOMENTUM in experiment.schedules:
        momentum = experiment.schedule(MOMENTUM, steps_per_epoch)
        call, args, kwargs = experiment.call("optimizer", learning_rate=schedule)
        make: Any = optax.inject_hyperparams(call)
        optimizer = make(*args, **kwargs | {"momentum": momentum})
    else:
        optimizer = experiment.build("optimizer", learning_rate=schedule)
    if experiment.weight_decay:
        decayed = None if experiment.decayed == "all" else DECAYED[experiment.decayed]
        decay = optax.add_decayed_weights(experiment.weight_decay, mask=decayed)
        optimizer = optax.chain(decay, optimizer)
    if experiment.clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(experiment.clip_norm), optimizer)
    return optimizer, schedule


def kernels(params: Any) -> Any:
    """A mask of the parameters with two axes or more: no biases, no scales of norm layers.

    Args:
      params: the network's parameters.

    Returns:
      The same tree of booleans.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def no_norm(params: Any) -> Any:
    """A mask of all parameters but those of norm layers (that have a `scale`).

    Args:
      params: the network's parameters.

    Returns:
      The same tree of booleans.
    """
    if not isinstance(params, dict):
        return True
    is_norm = "scale" in params
    return {
        name: jax.tree.map(lambda _: False, value) if is_norm else no_norm(value)
        for name, value in params.items()
    }


DECAYED = {"kernels": kernels, "no_norm": no_norm}
