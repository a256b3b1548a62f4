"""The programs of an experiment on shapes alone: its train step, and the attack that judges it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.bench._plan_data import DataShape, helper_is_missing
from jaxrobust.data import mixed_steps
from jaxrobust.devices import AXIS
from jaxrobust.evaluation import PGD
from jaxrobust.experiment import Experiment
from jaxrobust.losses import margin
from jaxrobust.networks import LogitsFunction, Network
from jaxrobust.objectives import Sizes
from jaxrobust.training import (
    LANES,
    build_model,
    build_optimizer,
    create_state,
    make_train_step,
    step_settings,
)

Program = tuple[Any, tuple[Any, ...]]  # a jitted function, and its arguments' shapes


@contextmanager
def stock_convolutions() -> Iterator[None]:
    """Programs as an accelerator gets them, although the default backend may be the CPU."""
    switch = "JAXROBUST_FAST_CONVOLUTIONS"
    before = os.environ.get(switch)
    os.environ[switch] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def steps_per_epoch(experiment: Experiment, shape: DataShape) -> int:
    """Steps that count as one epoch, as `training` counts them.

    Raises:
      ValueError: if a batch is larger than the training set.
    """
    size, batch_size = shape.train_size, experiment.batch_size
    if batch_size > size:
        raise ValueError(f"batch_size must be at most the {size} training examples")
    if shape.generated_size:
        return mixed_steps(size=size, batch_size=batch_size)
    return size // batch_size


def train_step_program(experiment: Experiment, shape: DataShape, mesh: Mesh) -> Program:
    """The train step of `training.train`, on shapes."""
    steps = steps_per_epoch(experiment, shape)
    model = _trained(experiment, shape)
    optimizer, _ = build_optimizer(experiment, steps)
    count, split = shape.train_size + shape.generated_size, P()
    sizes = Sizes(shape.num_classes, shape.image_shape, count, experiment.build("threat"))
    state = jax.eval_shape(
        lambda: create_state(experiment, model, optimizer, shape.image_shape, sizes=sizes)
    )
    settings = step_settings(experiment, optimizer, shape, steps)
    height, width, channels = shape.image_shape
    row = -(-height * width * channels // LANES) * LANES
    order: Any = jax.ShapeDtypeStruct((steps, experiment.batch_size), jnp.int32)
    if shape.streamed:
        count, split, order = experiment.batch_size, P(AXIS), None
    images = jax.ShapeDtypeStruct((count, row), jnp.uint8)
    labels = jax.ShapeDtypeStruct((count,), jnp.int32)
    parts = (_float32(experiment.build("objective")), _float32(experiment.build("threat")), model)
    arguments = (
        _placed(state, mesh, P()),
        *_placed((images, labels), mesh, split),
        *_placed((order, *parts), mesh, P()),
    )
    return make_train_step(settings, mesh, streamed=shape.streamed), arguments


def _trained(experiment: Experiment, shape: DataShape) -> Network:
    """The network with its helper; one that is not there has the form of the trained network."""
    if not helper_is_missing(experiment):
        return build_model(experiment, shape.num_classes, helper=True)
    own = build_model(experiment, shape.num_classes)
    images = jax.ShapeDtypeStruct((1, *shape.image_shape), jnp.float32)
    params, state = jax.eval_shape(own.init, jax.random.key(0), images)
    helper = LogitsFunction(params, state, own)
    return build_model(experiment, shape.num_classes, helper=helper)


def attack_program(experiment: Experiment, shape: DataShape, mesh: Mesh) -> tuple[Program, int]:
    """Margin PGD of the experiment's evaluation, and its batch: a share on every chip."""
    evaluation = experiment.evaluation
    batch_size = -(-evaluation.batch_size // mesh.size) * mesh.size
    model = build_model(experiment, shape.num_classes)
    images = jax.ShapeDtypeStruct((1, *shape.image_shape), jnp.float32)
    params, statistics = jax.eval_shape(model.init, jax.random.key(0), images)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch_size))
    step_size = evaluation.step_size

    def attack(logits_fn: Any, keys: Any, images: Any, labels: Any, threat: Any) -> Any:
        pgd = PGD(
            threat=threat,
            steps=evaluation.steps,
            step_size=None if step_size is None else jnp.float32(step_size),
            restarts=evaluation.restarts,
            loss=margin,
        )
        attacked = pgd(logits_fn, keys, images, labels)
        return attacked.images, attacked.success

    images = jax.ShapeDtypeStruct((batch_size, *shape.image_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    arguments = (
        _placed(LogitsFunction(params, statistics, model), mesh, P()),
        *_placed((keys, images, labels), mesh, P(AXIS)),
        _placed(_float32(experiment.build("threat")), mesh, P()),
    )
    return (jax.jit(attack), arguments), batch_size


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.float32), tree)


def _placed(tree: Any, mesh: Mesh, spec: P) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
