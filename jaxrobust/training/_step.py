"""The train step: written for one device of a named axis, run on all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.objectives import Batch, Objective
from jaxrobust.threats import Threat
from jaxrobust.training._state import TrainState

AXIS = "devices"
Metrics = dict[str, Array]
TrainStep = Callable[..., tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class StepSettings:
    """What a train step is made of; static.

    Attributes:
      model: the Flax network.
      optimizer: the Optax transformation.
      augmentations: `(key, image) -> image`, in order.
      max_value: the uint8 value that means 1.0.
      global_batch_norm: share BatchNorm's batch statistics over devices in the outer passes.
      ema_decay: of the parameter average; 0 for none.
    """

    model: Any
    optimizer: optax.GradientTransformation
    augmentations: tuple[Callable, ...] = ()
    max_value: int = 255
    global_batch_norm: bool = True
    ema_decay: float = field(default=0.0)


def device_mesh(devices: Sequence[Any] | None) -> Mesh:
    """Devices on one axis, over which batches are split.

    Args:
      devices: the devices; `None` for all.

    Returns:
      The mesh, with one axis named `AXIS`.
    """
    devices = jax.devices() if devices is None else list(devices)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(tree: Any, mesh: Mesh) -> Any:
    """The tree with a copy on every device of the mesh."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def make_train_step(settings: StepSettings, mesh: Mesh) -> TrainStep:
    """The jitted step over all devices of a mesh; the state is donated.

    Args:
      settings: what the step is made of.
      mesh: one axis named `AXIS`; the batch is split over it.

    Returns:
      `step(state, images, labels, order, objective, threat) -> (state, metrics)`:
      `images` `[n, h, w, c]` uint8 and `labels` `[n]` are the whole training set, on every
      device; `order` `[steps_per_epoch, batch]` the epoch's indices; `objective` and `threat`
      pytrees whose leaves may change from step to step without recompilation. Metrics are
      scalars averaged over the global batch.
    """
    per_device = jax.shard_map(
        partial(device_step, settings, AXIS),
        mesh=mesh,
        in_specs=(P(), P(), P(), P(AXIS), P(AXIS), P(), P()),
        out_specs=(P(), P()),
        # Gradients are averaged explicitly; the checker would sum them once more.
        check_vma=False,
    )

    @partial(jax.jit, donate_argnums=0)
    def train_step(
        state: TrainState,
        images: Array,
        labels: Array,
        order: Array,
        objective: Objective,
        threat: Threat,
    ) -> tuple[TrainState, Metrics]:
        indices = order[state.step % len(order)]
        positions = jnp.arange(len(indices))
        return per_device(state, images, labels, indices, positions, objective, threat)

    return train_step


def device_step(
    settings: StepSettings,
    axis: str,
    state: TrainState,
    images: Array,
    labels: Array,
    indices: Array,
    positions: Array,
    objective: Objective,
    threat: Threat,
) -> tuple[TrainState, Metrics]:
    """One step of one device: its share of the batch, then averages over `axis`.

    Keys are folded by the example's position in the global batch, so that augmentation and
    attack noise do not depend on the number of devices. (Dropout masks do: Flax draws them for
    a whole local batch.)
    """
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)
    augment_keys, attack_keys = jax.vmap(lambda k: jax.random.split(k), out_axes=1)(keys)
    dropout_key = jax.random.fold_in(step_key, positions[0])

    x = images[indices].astype(jnp.result_type(float)) / settings.max_value
    for number, augmentation in enumerate(settings.augmentations):
        x = jax.vmap(augmentation)(_fold(augment_keys, number), x)
    batch = Batch(x, labels[indices])

    variables = {"params": state.params, "batch_stats": state.batch_stats}
    attacked_logits = _attack_logits_fn(settings.model, variables, objective, dropout_key)
    views = objective.inner(attacked_logits, attack_keys, batch, threat)
    views = jax.lax.stop_gradient(views)

    model = settings.model.clone(axis_name=axis if settings.global_batch_norm else None)

    def loss_fn(params: Any) -> tuple[Array, tuple[Any, Metrics]]:
        statistics, logits = state.batch_stats, {}
        for number, (name, view) in enumerate(objective.passes):
            logits[name], updated = model.apply(
                {"params": params, "batch_stats": statistics},
                batch.images if view == "clean" else views.images[view],
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(dropout_key, number)},
            )
            statistics = updated.get("batch_stats", statistics)
        losses, metrics = objective.outer(logits, batch, views.extras)
        metrics = {name: jnp.mean(value) for name, value in metrics.items()}
        return jnp.mean(losses), (statistics, {"loss": jnp.mean(losses), **metrics})

    grads, (statistics, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
    grads, statistics, metrics = jax.lax.pmean((grads, statistics, metrics), axis)
    return _updated(settings, state, grads, statistics), metrics


def _attack_logits_fn(
    model: Any, variables: dict[str, Any], objective: Objective, dropout_key: Array
) -> Callable[[Array], Array]:
    """The network as the attack sees it: on running statistics, or on the attacked batch's own."""
    variables = jax.lax.stop_gradient(variables)
    if objective.attack_statistics == "running":
        return lambda images: model.apply(variables, images, train=False)

    def with_batch_statistics(images: Array) -> Array:
        logits, _ = model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key}
        )
        return logits

    return with_batch_statistics


def _updated(settings: StepSettings, state: TrainState, grads: Any, statistics: Any) -> TrainState:
    updates, opt_state = settings.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = state.ema_params
    if settings.ema_decay:
        ema_params = optax.incremental_update(params, ema_params, 1 - settings.ema_decay)
    return TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=statistics,
        opt_state=opt_state,
        ema_params=ema_params,
        key=state.key,
    )


def _fold(keys: Array, number: int) -> Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
