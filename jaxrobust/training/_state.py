"""Everything that a training run is at one step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of


class TrainState(NamedTuple):
    """A pytree; saving and restoring it resumes a run exactly.

    Attributes:
      step: number of steps taken, int32 `[]`.
      params: the model's parameters.
      batch_stats: running statistics of BatchNorm; empty without.
      opt_state: Optax's state.
      ema_params: moving average of the parameters, or `None`.
      ema_batch_stats: moving average of the running statistics, or `None`.
      key: raw key data (uint32) of the run; every draw folds the step into it.
      frozen: further variables of the model, which no step changes (the bases of a mixed
        classifier); empty without.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    key: Array
    ema_batch_stats: Any = None
    frozen: Any = None


def create_state(
    experiment: Experiment,
    model: Any,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
) -> TrainState:
    """The state before the first step, a function of the experiment's seed.

    Args:
      experiment: its seed and whether it averages parameters.
      model: the Flax network.
      optimizer: the Optax transformation.
      image_shape: `(h, w, c)`.

    Returns:
      `TrainState` at step 0.

    Raises:
      ValueError: if the network cannot take images of this shape.
    """
    create = _creator(experiment, model, optimizer, image_shape)
    # Copies: a step donates its state, and the model keeps what it starts with.
    frozen = jax.tree.map(jnp.copy, getattr(model, "frozen", None))
    return jax.jit(create)(key_of(experiment.seed))._replace(frozen=frozen)


def create_states(
    experiments: Sequence[Experiment],
    model: Any,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
) -> TrainState:
    """The states of experiments that differ in their seeds, from one program; their axis first."""
    create = _creator(experiments[0], model, optimizer, image_shape)
    keys = jnp.stack([key_of(experiment.seed) for experiment in experiments])
    frozen = jax.tree.map(
        lambda leaf: jnp.stack([leaf] * len(experiments)), getattr(model, "frozen", None)
    )
    return jax.jit(lambda keys: jax.lax.map(create, keys))(keys)._replace(frozen=frozen)


def _creator(
    experiment: Experiment,
    model: Any,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
) -> Callable[[Array], TrainState]:
    """The first state as a function of the seed's key."""

    def create(key: Array) -> TrainState:
        init_key, run_key = jax.random.split(key)
        variables = model.init(init_key, jnp.zeros((1, *image_shape)), train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        averaged = experiment.ema_batch_stats == "average" and experiment.ema_decay > 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema_params=jax.tree.map(jnp.copy, params) if experiment.ema_decay else None,
            ema_batch_stats=jax.tree.map(jnp.copy, batch_stats) if averaged else None,
            key=jax.random.key_data(run_key),
        )

    try:
        shapes = jax.eval_shape(create, key_of(experiment.seed))
        if any(leaf.size == 0 for leaf in jax.tree.leaves(shapes.params)):
            raise ValueError("the images are too small: a layer is left with nothing to see")
    except Exception as error:  # a network may fail in any way on images it was not made for
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"model {experiment.model.target} cannot take images of shape {image_shape} "
            f"from {experiment.data.target}: {reason}"
        ) from error
    return create


def evaluated_variables(state: TrainState) -> dict[str, Any]:
    """The variables that are evaluated: the averaged parameters if there are any.

    Args:
      state: of a run.

    Returns:
      What the model's `apply` takes.
    """
    params = state.params if state.ema_params is None else state.ema_params
    batch_stats = state.batch_stats if state.ema_batch_stats is None else state.ema_batch_stats
    variables = {"params": params, **frozen_variables(state)}
    return {**variables, "batch_stats": batch_stats} if batch_stats else variables


def frozen_variables(state: TrainState) -> dict[str, Any]:
    """The collection of the variables that no step changes, if there are any."""
    return {} if state.frozen is None else {"frozen": state.frozen}
