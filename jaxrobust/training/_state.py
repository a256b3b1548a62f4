"""Everything that a training run is at one step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust.experiment import Experiment


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
    init_key, run_key = jax.random.split(jax.random.key(experiment.seed))

    @jax.jit
    def create() -> TrainState:
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
        shapes = jax.eval_shape(create)
        if any(leaf.size == 0 for leaf in jax.tree.leaves(shapes.params)):
            raise ValueError("the images are too small: a layer is left with nothing to see")
    except Exception as error:  # a network may fail in any way on images it was not made for
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(
            f"model {experiment.model.name} cannot take images of shape {image_shape} "
            f"from {experiment.data.name}: {reason}"
        ) from error
    # Copies: a step donates its state, and the model keeps what it starts with.
    frozen = jax.tree.map(jnp.copy, getattr(model, "frozen", None))
    return create()._replace(frozen=frozen)


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
