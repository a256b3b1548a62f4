"""What a run needs before its first step: built and checked before its folder is claimed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxrobust.data import Dataset, Streamed
from jaxrobust.devices import AXIS, check_split, replicated
from jaxrobust.evaluation import PGD, evaluate
from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of
from jaxrobust.losses import margin
from jaxrobust.networks import LogitsFunction, Network, check_network
from jaxrobust.reasons import first_line
from jaxrobust.training._optimizer import build_optimizer
from jaxrobust.training._runners import Runner, make_train_step
from jaxrobust.training._runs import build_model
from jaxrobust.training._settings import step_settings
from jaxrobust.training._state import TrainState, create_state
from jaxrobust.training._supply import InMemory, OneByOne, make_supply


class Validator:
    """Clean and margin-PGD accuracy on held-out training examples; nothing without any.

    Args:
      experiment: its settings of validation and evaluation, and its seed.
      held_out: the examples, as a test set.
      threat: of the attack.
    """

    def __init__(self, experiment: Experiment, held_out: Dataset, threat: Any) -> None:
        self._images, self._labels = held_out.floats("test")
        self._attack = PGD(threat=threat, steps=experiment.validation.steps, loss=margin)
        self._experiment = experiment

    def __call__(self, network: Network, state: TrainState) -> dict[str, float]:
        """The accuracies of a state."""
        if not len(self._labels):
            return {}
        result = evaluate(
            jax.device_get(state.logits_fn(network)),
            self._images,
            self._labels,
            attacks={"margin_pgd": self._attack},
            batch_size=self._experiment.evaluation.batch_size,
            seed=self._experiment.seed,
        )
        return {"accuracy": result.clean.value, "robust_accuracy": result.worst.value}

    def check(self, network: Network, state: TrainState) -> None:
        """Traces the attack, so that one that cannot work raises before training.

        Raises:
          ValueError: if it cannot.
        """
        if not len(self._labels):
            return

        def attacked(logits_fn: LogitsFunction, images: Any, labels: Any) -> Any:
            keys = jax.random.split(key_of(0), len(images))
            return self._attack(logits_fn, keys, images, labels)

        shown = self._images[:1], self._labels[:1]
        try:
            jax.eval_shape(attacked, state.logits_fn(network), *shown)
        except Exception as error:  # threats and networks may fail in any way
            raise ValueError(
                f"{self._experiment.name} cannot be validated (validation.size=0 leaves it out): "
                f"{first_line(error)}"
            ) from error


class Prepared(NamedTuple):
    """What the loop works with.

    Attributes:
      model: the network.
      state: before the first step, on every device.
      train_step: `(state, images, labels, order, *parts) -> (state, metrics)`.
      supply: of the step's images, labels and order.
      parts: objective, threat and network, on every device.
      learning_rate: of a step.
      validate: accuracies on held-out examples.
    """

    model: Network
    state: TrainState
    train_step: Any
    supply: InMemory | OneByOne
    parts: tuple[Any, Any, Any]
    learning_rate: optax.Schedule
    validate: Validator


def prepare(
    experiment: Experiment, mesh: Mesh, *, runner: Runner, say: Callable[[str], None]
) -> Prepared:
    """Reads the data and builds the model, the optimizer, the state and the step.

    Args:
      experiment: to be trained.
      mesh: of the devices.
      runner: of the step.
      say: told what is unusual about the network.

    Returns:
      `Prepared`.

    Raises:
      ValueError: if the parts do not fit each other, the data or the devices.
    """
    # ---- data: on every device, as uint8; or streamed ---------------------------------------
    check_split(experiment.batch_size, mesh, microbatches=experiment.microbatches)
    dataset = experiment.build("data")
    rest, held_out = dataset.held_out(experiment.validation.size, seed=experiment.seed)
    supply = make_supply(experiment, rest, mesh, runner=runner)

    # ---- model, optimizer, state ------------------------------------------------------------
    model = build_model(experiment, dataset.num_classes)
    optimizer, learning_rate = build_optimizer(experiment, supply.steps_per_epoch)
    objective, threat = (on_device(experiment.build(part)) for part in ("objective", "threat"))
    state = create_state(experiment, model, optimizer, dataset.image_shape)
    check_model(experiment, model, dataset, mesh, say=say)
    validate = Validator(experiment, held_out, threat)

    # ---- the step ---------------------------------------------------------------------------
    settings = step_settings(experiment, optimizer, dataset, supply.steps_per_epoch)
    train_step = make_train_step(settings, mesh, runner=runner, streamed=isinstance(rest, Streamed))
    state, parts = replicated((state, (objective, threat, model)), mesh)
    return Prepared(model, state, train_step, supply, parts, learning_rate, validate)


def check_model(
    experiment: Experiment,
    network: Network,
    dataset: Dataset | Streamed,
    mesh: Mesh,
    *,
    say: Callable[[str], None],
) -> None:
    """Traces the network, see `check_network`.

    Args:
      experiment: whose network.
      network: made from it.
      dataset: with the shape of the images and the number of classes.
      mesh: of the devices; the batch is split over their axis `AXIS`.
      say: told what is unusual.

    Raises:
      ValueError: if the network would train wrongly.
    """
    devices = mesh.shape[AXIS] if experiment.batch_norm == "global" else 1
    name, shape = experiment.model.name, dataset.image_shape
    try:
        remarks = check_network(
            network, shape, dataset.num_classes, axis_size=devices if devices > 1 else None
        )
    except Exception as error:  # a network may fail in any way
        raise ValueError(f"model {name} cannot be trained: {first_line(error)}") from error
    for remark in remarks:
        say(f"model {name}: {remark}")


def lowered(train_step: Any, arguments: tuple[Any, ...], *, name: str) -> Any:
    """The traced step: here a part that cannot work with the others raises.

    Args:
      train_step: with `lower`.
      arguments: of it.
      name: of the run.

    Returns:
      What has `compile`.

    Raises:
      ValueError: if the step cannot be traced.
    """
    try:
        return train_step.lower(*arguments)
    except Exception as error:  # augmentations, networks and objectives may fail in any way
        raise ValueError(
            f"the train step of {name} cannot be built: {first_line(error)}"
        ) from error


def on_device(tree: Any) -> Any:
    """Python numbers as float32 arrays: their values are then no part of the compiled program."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
