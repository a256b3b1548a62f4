"""The train step of one device of a named axis; `_program` runs it on all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust.bounds import margins
from jaxrobust.convolutions import fast_on_cpu
from jaxrobust.devices import images_of
from jaxrobust.inputs import InputError
from jaxrobust.keys import key_of_data
from jaxrobust.networks import Network
from jaxrobust.objectives import Batch, Clock, Objective, Stateful, Views
from jaxrobust.threats import Threat, batched
from jaxrobust.training._carried import Carried, observed, total_over, with_state
from jaxrobust.training._state import TrainState
from jaxrobust.training._updates import Averaging, mean_over, updated, weight_perturbation

Metrics = dict[str, Array]


@dataclass(frozen=True)
class StepSettings:
    """What a train step is made of; static.

    Attributes:
      optimizer: the Optax transformation.
      augmentations: `(key, image) -> image`, in order.
      batch_augmentations: `(key, images, labels) -> images, labels` on the labels' probabilities
        `[b, k]`, in order, after `augmentations`; partners come from the same device.
      image_shape: `(h, w, c)` where the training images are rows of bytes (`image_rows`, which TPUs
        gather without copying the set); `None` where they are `[n, h, w, c]`.
      num_classes: `k`, for `batch_augmentations`.
      transform: a threat of which every training image suffers a random member before it is
        attacked, or `None`.
      max_value: the uint8 value that means 1.0.
      global_batch_norm: share BatchNorm's batch statistics over devices in the outer passes.
      averaging: of the parameters, or `None`.
      microbatches: parts of a device's batch that are computed one after the other, to save
        memory; BatchNorm sees a part at a time.
      schedules: `(path, schedule)` pairs: values of the objective ("objective.lam"), the threat
        ("threat.eps") or the transform ("transform.max_degrees") as functions of the step.
      steps_per_epoch: of the run, for objectives that count epochs; default: the order's length.
      awp: size of the adversarial weight perturbation, relative to each kernel's norm; a function
        of the step, or `None`.
    """

    optimizer: optax.GradientTransformation
    augmentations: tuple[Callable, ...] = ()
    batch_augmentations: tuple[Callable, ...] = ()
    image_shape: tuple[int, ...] | None = None
    num_classes: int = 0
    transform: Threat | None = None
    max_value: int = 255
    global_batch_norm: bool = True
    averaging: Averaging | None = None
    microbatches: int = 1
    schedules: tuple[tuple[str, optax.Schedule], ...] = ()
    steps_per_epoch: int | None = None
    awp: optax.Schedule | None = None


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
    network: Network,
    steps_per_epoch: int = 1,
) -> tuple[TrainState, Metrics]:
    """One step of one device: its share of the batch, then averages over `axis`.

    Keys are folded by the example's position in the global batch, so that augmentation and
    attack noise do not depend on the number of devices. (Dropout masks and CutMix's partners do:
    they are drawn for a whole local batch.)
    """
    step_key = jax.random.fold_in(key_of_data(state.key), state.step)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, positions)
    augment_keys, attack_keys = jax.vmap(lambda k: jax.random.split(k), out_axes=1)(keys)
    local_key = jax.random.fold_in(step_key, positions[0])
    parts = {"objective": objective, "threat": threat, "transform": settings.transform}
    now = replaced(settings.schedules, state.step, **parts)
    objective, threat = now["objective"], now["threat"]

    images, labels = images[indices], labels[indices]
    if settings.image_shape is not None:
        images = images_of(images, settings.image_shape)
    batch = _batch(settings, augment_keys, local_key, images, labels)
    batch = batch._replace(images=_moved(now["transform"], augment_keys, batch.images))
    clock = Clock(state.step, steps_per_epoch)
    carried = Carried(objective, network, state, clock, step_key, axis)
    carried.begin(threat)
    attacked = _split((batch, attack_keys, carried.rows(indices)), settings.microbatches)
    logits_fn = _attack_logits_fn(network, state, objective, local_key)
    views = _attacked(settings, logits_fn, objective, threat, attacked, carried)
    carried.remember(views, indices)
    weights = _normalised(views.log_weights, axis)
    outer = (attacked[0], views._replace(log_weights=None, batch_stats=None), weights)

    def gradients(params: Any) -> tuple[Any, Any, Metrics, Any]:
        forward = _training_pass(network, objective, axis if settings.global_batch_norm else None)
        statistics = state.batch_stats if views.batch_stats is None else views.batch_stats
        passes = forward, _bound_pass(network, objective)
        *found, sums = _gradients(
            settings, passes, params, statistics, objective, local_key, outer, carried
        )
        return *mean_over(axis, *found), total_over(axis, sums)

    if settings.awp is None:
        grads, statistics, metrics, sums = gradients(state.params)
    else:
        # The weights move where the loss grows most; the gradient there updates the old weights.
        uphill, *_ = gradients(state.params)
        moved = weight_perturbation(state.params, uphill, size=settings.awp(state.step))
        grads, statistics, metrics, sums = gradients(moved)
    new_state = updated(settings.optimizer, settings.averaging, state, grads, statistics)
    return new_state._replace(objective=carried.end(sums)), metrics


def replaced(
    schedules: Sequence[tuple[str, optax.Schedule]], step: Array, **parts: Any
) -> dict[str, Any]:
    """The parts of a step with the scheduled values of this step.

    Args:
      schedules: pairs of a path, "objective.lam" or "threat.eps", and a function of the step.
      step: `[]` int32, 0 before the first step.
      **parts: objective, threat and transform by name, with leaves that may be traced.

    Returns:
      The parts by name.
    """
    for path, schedule in schedules:
        head, _, name = path.partition(".")
        value = jnp.asarray(schedule(step), jnp.result_type(float))
        parts[head] = replace(parts[head], **{name: value})
    return parts


def _batch(
    settings: StepSettings, keys: Array, local_key: Array, images: Array, labels: Array
) -> Batch:
    """The device's augmented batch, in [0, 1]."""
    x = images.astype(jnp.result_type(float)) / settings.max_value
    for number, augmentation in enumerate(settings.augmentations):
        x = jax.vmap(augmentation)(jax.vmap(jax.random.fold_in, (0, None))(keys, number), x)
    if settings.batch_augmentations:
        labels = jax.nn.one_hot(labels, settings.num_classes, dtype=x.dtype)
    for number, mix in enumerate(settings.batch_augmentations):
        x, labels = mix(jax.random.fold_in(local_key, 1000 + number), x, labels)
    return Batch(x, labels)


def _moved(transform: Threat | None, keys: Array, images: Array) -> Array:
    """The images after a random member of the transform, one draw each."""
    if transform is None:
        return images
    verbs = batched(transform, len(images))
    draws = verbs.init(jax.vmap(jax.random.fold_in, (0, None))(keys, 1000), images)
    return verbs.apply(draws, images)


def _split(tree: Any, parts: int) -> Any:
    """Leaves `[b, ...]` as `[parts, b / parts, ...]`."""
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:]), tree)


def _attacked(
    settings: StepSettings,
    logits_fn: Any,
    objective: Objective,
    threat: Threat,
    parts: tuple[Batch, Array, dict[str, Array]],
    carried: Carried,
) -> Views:
    """The adversarial views of all parts, `[parts, b / parts, ...]`; constants."""

    def inner(part: tuple[Batch, Array, dict[str, Array]]) -> Views:
        batch, keys, rows = part
        shown = with_state(objective, carried.shown(rows))
        return objective.inner(logits_fn, keys, batch, threat, *shown)

    if settings.microbatches == 1:  # no loop around the attack's loop
        first = jax.tree.map(lambda leaf: leaf[0], parts)
        views = inner(first)
        statistics = views.batch_stats
        views = jax.tree.map(lambda leaf: leaf[None], views._replace(batch_stats=None))
        return jax.lax.stop_gradient(views._replace(batch_stats=statistics))
    if objective.attack_statistics == "update":
        raise ValueError(
            'microbatches must be 1 for attack_statistics "update", '
            f"got {settings.microbatches}: the attacks of the parts would not follow each other"
        )
    return jax.lax.stop_gradient(jax.lax.map(inner, parts))


def _attack_logits_fn(network: Network, state: TrainState, objective: Objective, key: Array) -> Any:
    """The network as the attack sees it: on running statistics, or on the attacked batch's own."""
    network, params, before = jax.lax.stop_gradient((network, state.params, state.batch_stats))
    method = getattr(objective, "method", None)
    if objective.attack_statistics == "running":
        return lambda images: network.apply(params, before, images, train=False, method=method)[0]

    def apply(images: Array, statistics: Any) -> tuple[Array, Any]:
        return network.apply(params, statistics, images, train=True, key=key, method=method)

    if objective.attack_statistics == "update":
        return Stateful(apply, before)
    return lambda images: apply(images, before)[0]


def _normalised(log_weights: Array | None, axis: str) -> Array | None:
    """The weights with mean 1 over the batches of all devices."""
    if log_weights is None:
        return None
    weights = jnp.exp(log_weights - jax.lax.pmax(jnp.max(log_weights), axis))
    return weights / jax.lax.pmean(jnp.mean(weights), axis)


def _training_pass(network: Network, objective: Objective, axis_name: str | None) -> Any:
    """`(params, statistics, images, key, name) -> (logits, statistics)` of an outer pass."""
    own = getattr(objective, "method", None)
    teacher = {"teacher"} & set(getattr(objective, "networks", ()))

    def forward(params: Any, statistics: Any, images: Array, key: Array, name: str = "") -> Any:
        method = name if name in teacher else own
        options: Any = {"axis_name": axis_name, "method": method, "key": key}

        def apply(params: Any, statistics: Any, images: Array) -> Any:
            return network.apply(params, statistics, images, train=True, **options)

        return fast_on_cpu(apply)(params, statistics, images)

    return forward


def _bound_pass(network: Network, objective: Objective) -> Any:
    """`(params, statistics, batch, views) -> margins` by name: none without a `bound`."""
    bound, method = getattr(objective, "bound", None), getattr(objective, "method", None)
    if bound is None:
        return lambda *arguments: {}

    def certified(params: Any, statistics: Any, batch: Batch, views: Views) -> dict[str, Array]:
        fixed = jax.lax.stop_gradient(statistics)

        def logits_fn(images: Array) -> Array:
            return network.apply(params, fixed, images, train=False, method=method)[0]

        low, high = views.images[bound.lower], views.images[bound.upper]
        options = {"lower": low, "upper": high, "method": bound.method}
        return {bound.name: margins(logits_fn, batch.images, batch.labels, **options)}

    return certified


def _gradients(
    settings: StepSettings,
    passes: tuple[Any, Any],
    params: Any,
    before: Any,
    objective: Objective,
    key: Array,
    parts: tuple[Batch, Views, Array | None],
    carried: Carried,
) -> tuple[Any, Any, Metrics, Any]:
    """Gradients, running statistics and metrics of one device, averaged over its parts.

    The last result are the objective's sums, `[parts, ...]`.
    """
    (forward, bound), (batches, views, weights) = passes, parts
    held = carried.without_rows()

    def loss_fn(params: Any, statistics: Any, number: Array | int, part: Any) -> Any:
        batch, views, weights = part
        logits, part_key = {}, jax.random.fold_in(key, number)
        for position, (name, view) in enumerate(objective.passes):
            images = batch.images if view == "clean" else views.images[view]
            dropout_key = jax.random.fold_in(part_key, position)
            logits[name], statistics = forward(params, statistics, images, dropout_key, name)
        logits |= bound(params, statistics, batch, views)
        state = with_state(objective, held)
        losses, metrics = objective.outer(logits, batch, views.extras, *state)
        if jnp.ndim(losses) > 1:
            raise InputError(
                "objective must return one loss per example, [b], from outer, got shape "
                f"{jnp.shape(losses)}"
            )
        sums = observed(objective, logits, batch, views.extras, held)
        penalty = getattr(objective, "penalty", None)
        if penalty is not None:
            last_key = jax.random.fold_in(part_key, len(objective.passes))
            apply = partial(_with_params, forward, params, last_key)
            more, extra, statistics = penalty(Stateful(apply, statistics), batch, views, *state)
            losses, metrics = losses + more.astype(losses.dtype), metrics | extra
        loss = jnp.mean(losses if weights is None else weights.astype(losses.dtype) * losses)
        metrics = {name: jnp.mean(value) for name, value in metrics.items()}
        return loss, (statistics, {"loss": loss, **metrics}, sums)

    gradient = jax.grad(loss_fn, has_aux=True)
    if settings.microbatches == 1:
        part = jax.tree.map(lambda leaf: leaf[0], (batches, views, weights))
        grads, (statistics, metrics, sums) = gradient(params, before, 0, part)
        return grads, statistics, metrics, jax.tree.map(lambda leaf: leaf[None], sums)

    def accumulate(carry: tuple, numbered: tuple[Array, Any]) -> tuple[tuple, Any]:
        total, statistics = carry
        grads, (statistics, metrics, sums) = gradient(params, statistics, *numbered)
        return (jax.tree.map(jnp.add, total, grads), statistics), (metrics, sums)

    numbers = jnp.arange(settings.microbatches)
    start = (jax.tree.map(jnp.zeros_like, params), before)
    (total, statistics), (metrics, sums) = jax.lax.scan(
        accumulate, start, (numbers, (batches, views, weights))
    )
    grads = jax.tree.map(lambda leaf: leaf / settings.microbatches, total)
    return grads, statistics, {name: jnp.mean(value) for name, value in metrics.items()}, sums


def _with_params(forward: Any, params: Any, key: Array, images: Array, statistics: Any) -> Any:
    return forward(params, statistics, images, key)
