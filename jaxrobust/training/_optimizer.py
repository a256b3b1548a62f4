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


# Flax, Equinox, and Haiku: an Equinox convolution's bias is [out, 1, 1].
VECTORS = ("bias", "b", "scale", "offset")


def kernels(params: Any) -> Any:
    """A mask of the parameters that are kernels: no biases, no scales of norm layers.

    Args:
      params: the network's parameters.

    Returns:
      The same tree of booleans: true with two axes or more, under no name of `VECTORS`.
    """

    def of_node(node: Any, name: str | None = None) -> Any:
        if isinstance(node, dict):
            norm = _is_norm(node)
            return {
                key: of_node(value, "scale" if norm and key == "weight" else key)
                for key, value in node.items()
            }
        return jax.tree.map(lambda leaf: leaf.ndim > 1 and name not in VECTORS, node)

    return of_node(params)


def no_norm(params: Any) -> Any:
    """A mask of all parameters but those of norm layers.

    Args:
      params: the network's parameters.

    Returns:
      The same tree of booleans.
    """
    if not isinstance(params, dict):
        return True
    is_norm = _is_norm(params)
    return {
        name: jax.tree.map(lambda _: False, value) if is_norm else no_norm(value)
        for name, value in params.items()
    }


def _is_norm(node: dict[str, Any]) -> bool:
    """Whether a layer has a `scale`; or, as Equinox', a `weight` of its bias' shape."""
    weight, bias = node.get("weight"), node.get("bias")
    if "scale" in node or weight is None or bias is None:
        return "scale" in node
    return weight.shape == bias.shape


DECAYED = {"kernels": kernels, "no_norm": no_norm}
