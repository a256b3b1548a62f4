"""What a run needs before its first step: built and checked before its folder is claimed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxrobust.data import Dataset, Streamed
from jaxrobust.devices import AXIS, check_split, replicated
from jaxrobust.evaluation import PGD, evaluate
from jaxrobust.experiment import Experiment, check_scheduled
from jaxrobust.keys import key_of
from jaxrobust.losses import margin
from jaxrobust.networks import LogitsFunction, Network, check_network
from jaxrobust.objectives import Sizes
from jaxrobust.reasons import first_line
from jaxrobust.training._program import Group, Tables
from jaxrobust.training._runs import build_model, first_weights
from jaxrobust.training._state import TrainState
from jaxrobust.training._step import StepSettings
from jaxrobust.training._supply import InMemory, OneByOne, make_supply
from jaxrobust.training._updates import Averaging, build_optimizer

PARTS_THAT_CHANGE = ("objective.", "threat.", "transform.")


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
      states: before the first step, as the group's program takes them.
      train_step: `(states, images, labels, order, *parts) -> (states, metrics)`.
      supply: of the step's images, labels and order.
      parts: objective, threat, network and what else the group's program takes.
      learning_rate: of a step.
      validators: of each run, accuracies on its held-out examples.
    """

    model: Network
    states: TrainState
    train_step: Any
    supply: InMemory | OneByOne
    parts: tuple[Any, ...]
    learning_rate: optax.Schedule
    validators: list[Validator]


def prepare(
    experiments: Sequence[Experiment],
    group: Group,
    *,
    from_weights: bool,
    say: Callable[[str], None],
) -> Prepared:
    """Reads the data and builds the model, the optimizer, the states and the step.

    Args:
      experiments: to be trained by one program.
      group: that trains them.
      from_weights: read what the experiments start from; a run that goes on does not need it.
      say: told what is unusual about the network.

    Returns:
      `Prepared`.

    Raises:
      ValueError: if the parts do not fit each other, the data or the devices.
    """
    # ---- data: on every device, as uint8; or streamed ---------------------------------------
    first = experiments[0]
    check_split(first.batch_size, group.mesh, microbatches=first.microbatches)
    dataset, size = first.build("data"), first.validation.size
    splits = {e.seed: dataset.held_out(size, seed=e.seed) for e in experiments}
    supply = make_supply(experiments, {s: rest for s, (rest, _) in splits.items()}, group)

    for experiment in experiments:
        check_scheduled(experiment, supply.steps_per_epoch)

    # ---- model, optimizer, state ------------------------------------------------------------
    model = build_model(first, dataset.num_classes, helper=True)
    optimizer, learning_rate = build_optimizer(first, supply.steps_per_epoch)
    built = [on_device((e.build("objective"), e.build("threat"))) for e in experiments]
    shape = tuple(dataset.image_shape)
    sizes = Sizes(dataset.num_classes, shape, supply.examples, built[0][1])
    check_memory(built[0][0], sizes, streamed=isinstance(dataset, Streamed), say=say)
    states = group.states(experiments, model, optimizer, dataset.image_shape, sizes=sizes)
    check_model(first, model, dataset, group.mesh, say=say)
    if from_weights and first.init_from is not None:
        weights = first_weights(
            first.init_from, model, num_classes=dataset.num_classes, trust=first.packages()
        )
        begun = [_begun_from(weights, state, first, optimizer) for state in group.split(states)]
        states = group.stack(begun)
    validators = [
        Validator(experiment, splits[experiment.seed][1], threat)
        for experiment, (_, threat) in zip(experiments, built, strict=True)
    ]

    # ---- the step ---------------------------------------------------------------------------
    settings, tables = own_schedules(
        step_settings(first, optimizer, dataset, supply.steps_per_epoch),
        experiments,
        supply.steps_per_epoch,
    )
    train_step = group.program(settings, streamed=isinstance(dataset, Streamed))
    parts = group.parts(built, replicated(model, group.mesh), tables)
    return Prepared(model, states, train_step, supply, parts, learning_rate, validators)


def own_schedules(
    settings: StepSettings, experiments: Sequence[Experiment], steps_per_epoch: int
) -> tuple[StepSettings, list[Tables]]:
    """Schedules in which runs of one program differ, as tables: data instead of code.

    Args:
      settings: of the first experiment.
      experiments: of the program.
      steps_per_epoch: of the runs.

    Returns:
      The settings with the schedules that all runs share, and each run's tables of the others.
    """
    first, *others = experiments
    own = [p for p, s in first.schedules.items() if any(o.schedules[p] != s for o in others)]
    shared = tuple(pair for pair in settings.schedules if pair[0] not in own)
    steps = jnp.arange(max(first.epochs * steps_per_epoch, 1))

    def table(experiment: Experiment, path: str) -> jax.Array:
        schedule = experiment.schedule(path, steps_per_epoch)
        return jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.result_type(float)))(steps)

    return replace(settings, schedules=shared), [
        {path: table(experiment, path) for path in own} for experiment in experiments
    ]


def _begun_from(
    weights: LogitsFunction,
    state: TrainState,
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """A first state with other weights and running statistics.

    Raises:
      ValueError: if they are not those of the experiment's network.
    """
    given = {"params": weights.params, "batch_stats": weights.state}
    own = {"params": state.params, "batch_stats": state.batch_stats}
    shapes, wanted = (
        {jax.tree_util.keystr(path): jnp.shape(leaf) for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (given, own))
    )
    for path in sorted(shapes.keys() | wanted.keys()):
        there, here = shapes.get(path, "missing"), wanted.get(path, "missing")
        if there != here:
            raise ValueError(
                f"init_from must hold the weights of the same network as {experiment.name}'s, got "
                f"{experiment.init_from}: {path} has shape {there} there and {here} here"
            )
    # Copies: a step donates its state, in which no array may stand twice.
    new = jax.tree.map(lambda there, here: jnp.array(there, here.dtype), given, own)
    again = jax.tree.map(jnp.copy, new)
    return state._replace(
        **new,
        opt_state=optimizer.init(new["params"]),
        ema_params=None if state.ema_params is None else again["params"],
        ema_batch_stats=None if state.ema_batch_stats is None else again["batch_stats"],
    )


def check_memory(
    objective: Any, sizes: Sizes, *, streamed: bool, say: Callable[[str], None]
) -> None:
    """Tells the size of what an objective keeps for every training example.

    Args:
      objective: the recipe.
      sizes: of the data.
      streamed: whether a step gets its batch alone, without the numbers of its examples.
      say: told the size.

    Raises:
      ValueError: if the data are streamed.
    """
    names = getattr(objective, "remembered", ())
    if not names:
        return
    kind = type(objective).__name__
    if streamed:
        raise ValueError(
            f"{kind} keeps {' and '.join(names)} of every training example, whose numbers are "
            "unknown where data are streamed: load the set into memory (stream=False)"
        )
    held = jax.eval_shape(lambda: objective.init_state(sizes))
    size = sum(math.prod(held[name].shape) * held[name].dtype.itemsize for name in names)
    say(
        f"{kind} keeps {' and '.join(names)} of {sizes.examples:,} examples: {size / 1e6:,.1f} MB "
        "on every device and in every checkpoint"
    )


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
    name, shape = experiment.model.target, dataset.image_shape
    try:
        remarks = check_network(
            network, shape, dataset.num_classes, axis_size=devices if devices > 1 else None
        )
    except Exception as error:  # a network may fail in any way
        raise ValueError(
            f"model {name} cannot be trained on images of shape {tuple(shape)}: {first_line(error)}"
        ) from error
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
            experiment.ema_copied_steps,
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
        steps_per_epoch=steps_per_epoch,
        schedules=tuple((path, experiment.schedule(path, steps_per_epoch)) for path in paths),
        awp=awp,
    )
