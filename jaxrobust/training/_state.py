"""Everything that a training run is at one step."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust.experiment import Experiment
from jaxrobust.keys import key_of
from jaxrobust.networks import LogitsFunction, Network
from jaxrobust.objectives import Sizes


class TrainState(NamedTuple):
    """A pytree; saving and restoring it resumes a run exactly.

    Attributes:
      step: number of steps taken, int32 `[]`.
      params: the network's parameters.
      batch_stats: the network's state (running statistics of BatchNorm); empty without.
      opt_state: Optax's state.
      ema_params: moving average of the parameters, or `None`.
      ema_batch_stats: moving average of the running statistics, or `None`.
      key: raw key data (uint32) of the run; every draw folds the step into it.
    """

    step: Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    key: Array
    ema_batch_stats: Any = None
    objective: Any = None

    def logits_fn(self, network: Network) -> LogitsFunction:
        """The network as it is evaluated: with the averages, if there are any."""
        params = self.params if self.ema_params is None else self.ema_params
        statistics = self.batch_stats if self.ema_batch_stats is None else self.ema_batch_stats
        return LogitsFunction(params, statistics, network)


def create_state(
    experiment: Experiment,
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    *,
    sizes: Sizes | None = None,
) -> TrainState:
    """The state before the first step, a function of the experiment's seed.

    Args:
      experiment: its seed and whether it averages parameters.
      network: the network.
      optimizer: the Optax transformation.
      image_shape: `(h, w, c)`.
      sizes: of the data, for the objective's own state, which is left out without them.

    Returns:
      `TrainState` at step 0.

    Raises:
      ValueError: if the network cannot take images of this shape.
    """
    create = _creator(experiment, network, optimizer, image_shape, sizes)
    return jax.jit(create)(key_of(experiment.seed))


def create_states(
    experiments: Sequence[Experiment],
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    *,
    sizes: Sizes | None = None,
) -> TrainState:
    """The states of experiments that differ in their seeds, from one program; their axis first."""
    create = _creator(experiments[0], network, optimizer, image_shape, sizes)
    keys = jnp.stack([key_of(experiment.seed) for experiment in experiments])
    return jax.jit(lambda keys: jax.lax.map(create, keys))(keys)


def _creator(
    experiment: Experiment,
    network: Network,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    sizes: Sizes | None,
) -> Callable[[Array], TrainState]:
    """The first state as a function of the seed's key."""
    objective = experiment.build("objective")
    carries = sizes is not None and hasattr(objective, "init_state")

    def create(key: Array) -> TrainState:
        init_key, run_key = jax.random.split(key)
        made = network.init(init_key, jnp.zeros((1, *image_shape)))
        # A restored state has no weak types; a program for weak ones would not take it.
        params, batch_stats = jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), made)
        averaged = experiment.ema_batch_stats == "average" and experiment.ema_decay > 0
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats=batch_stats,
            opt_state=optimizer.init(params),
            ema_params=jax.tree.map(jnp.copy, params) if experiment.ema_decay else None,
            ema_batch_stats=jax.tree.map(jnp.copy, batch_stats) if averaged else None,
            key=jax.random.key_data(run_key),
            objective=objective.init_state(sizes) if carries else None,
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
