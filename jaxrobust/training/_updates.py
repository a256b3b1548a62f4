"""What becomes of gradients: the optimizer, the parameter average, AWP, RAMP's projection."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.experiment import Experiment
from jaxrobust.inputs import InputError, as_number
from jaxrobust.training._state import TrainState

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


@dataclass(frozen=True)
class Averaging:
    """An exponential moving average of the parameters.

    Attributes:
      decay: of the average, in (0, 1).
      warmup_steps: number of first steps in which the average copies the parameters; then its decay
        is `min(decay, (1 + d) / (10 + d))`, `d` steps later: it forgets the start quickly. `None`
        for `decay` from the first step on.
      batch_stats: "live" evaluates the average with the running statistics of the trained network
        (the papers), "average" with their own average.
      copied_steps: without a warm-up: number of first steps in which it copies them, before its
        full decay (1 in the FastAT benchmark, whose average starts after the first step).
    """

    decay: float
    warmup_steps: float | None = None
    batch_stats: Literal["live", "average"] = "live"
    copied_steps: float = 0

    def decay_at(self, count: Array) -> Array:
        """The decay of the `count`-th step, counted from 1.

        Args:
          count: `[]`, number of steps taken.

        Returns:
          `[]` floating point.

        References:
          Gowal et al., 2020 (arXiv:2010.03593); the rule of Rade's code, which SCORE builds on.
        """
        if self.warmup_steps is None:
            decay = jnp.asarray(self.decay, jnp.result_type(float))
            return jnp.where(count <= self.copied_steps, 0, decay)
        since = count.astype(jnp.result_type(float)) - self.warmup_steps
        decay = jnp.minimum(self.decay, (1 + since) / (10 + since))
        return jnp.where(since <= 0, 0, decay)


def updated(
    optimizer: optax.GradientTransformation,
    averaging: Averaging | None,
    state: TrainState,
    grads: Any,
    statistics: Any,
) -> TrainState:
    """The state after an optimizer step along `grads`."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params, ema_batch_stats = state.ema_params, state.ema_batch_stats
    if averaging is not None:
        decay = averaging.decay_at(state.step + 1)

        def average(old: Any, new: Any) -> Any:
            def leaf(o: Array, n: Array) -> Array:
                return o + (1 - decay).astype(n.dtype) * (n - o) if is_averaged(n) else n

            return jax.tree.map(leaf, old, new)

        ema_params = average(ema_params, params)
        if ema_batch_stats is not None:
            ema_batch_stats = average(ema_batch_stats, statistics)
    return state._replace(
        step=state.step + 1,
        params=params,
        batch_stats=statistics,
        opt_state=opt_state,
        ema_params=ema_params,
        ema_batch_stats=ema_batch_stats,
    )


def is_averaged(leaf: Array) -> bool:
    """Whether a leaf of a network's state is averaged: counters and flags are not."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def mean_over(axis: str, grads: Any, statistics: Any, metrics: Any) -> tuple[Any, Any, Any]:
    """The means over devices, taken at once; of the statistics only what is floating point."""
    leaves, structure = jax.tree.flatten(statistics)
    moving = [leaf for leaf in leaves if is_averaged(leaf)]
    grads, moving, metrics = jax.lax.pmean((grads, moving, metrics), axis)
    means = iter(moving)
    found = [next(means) if is_averaged(leaf) else leaf for leaf in leaves]
    return grads, jax.tree.unflatten(structure, found), metrics


def weight_perturbation(params: Any, grads: Any, *, size: Array) -> Any:
    """Parameters moved uphill: each kernel by `size` times its own norm along its gradient.

    Scales and biases stay (`kernels`). Adversarial weight perturbation evaluates the
    loss there, and applies that gradient to the parameters that were not moved. (The authors'
    code applies it, weight decay included, to the moved ones and then moves them back.)

    Args:
      params: the network's parameters.
      grads: of the adversarial loss.
      size: gamma, 0.005 to 0.01 in the paper. May be traced.

    Returns:
      The moved parameters.

    References:
      Wu et al., Adversarial Weight Perturbation Helps Robust Generalization, 2020
      (arXiv:2004.05884), Eq. 8.
    """

    def move(weight: Array, grad: Array, kernel: bool) -> Array:
        if not kernel:
            return weight
        norm = jnp.sqrt(jnp.sum(grad * grad))
        length = jnp.asarray(size, weight.dtype) * jnp.sqrt(jnp.sum(weight * weight))
        return weight + length * grad / jnp.where(norm > 0, norm, 1)

    return jax.tree.map(move, params, grads, kernels(params))


def gradient_projection(old: Any, adversarial: Any, natural: Any, *, beta: ArrayLike = 0.5) -> Any:
    r"""Weights after an epoch of adversarial training, drawn towards natural training.

    .. math:: \theta = \theta_0 + \beta \max(\cos(d_a, d_n), 0)\, d_n + (1 - \beta)\, d_a

    for each array by itself, with the changes :math:`d_a` of an adversarial epoch and :math:`d_n`
    of a natural one, which both begin at :math:`\theta_0`; the cosine is that of the flattened
    arrays. The published code includes BatchNorm's running statistics, so give them too.

    Args:
      old: a pytree of arrays at the epoch's start; `None` and integers are allowed.
      adversarial: the same after an epoch of adversarial training.
      natural: the same after an epoch of natural training, with an optimizer of its own.
      beta: share of the natural change, in [0, 1]. May be traced.

    Returns:
      The pytree; arrays that are not floating point (counters) are those of `adversarial`.

    Raises:
      ValueError: if the trees differ in their structure or shapes, or `beta` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.training import gradient_projection
      >>> zero, one = jnp.zeros(2), jnp.array([1.0, 0.0])
      >>> gradient_projection(zero, one, jnp.array([0.0, 1.0]), beta=0.5).tolist()
      [0.5, 0.0]

    References:
      Jiang and Singh, RAMP: Boosting Adversarial Robustness Against Multiple l_p Perturbations,
      2024 (arXiv:2402.06827), Algorithm 1.
    """
    as_number(beta, name="beta", low=0, high=1)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (old, adversarial, natural)]
    for name, other in zip(("adversarial", "natural"), shapes[1:], strict=True):
        if other != shapes[0]:
            raise InputError(f"{name} must have the structure and shapes of old, got {other}")

    def projected(start: Any, attacked: Any, clean: Any) -> Array:
        start, attacked, clean = (jnp.asarray(leaf) for leaf in (start, attacked, clean))
        if not jnp.issubdtype(start.dtype, jnp.inexact):
            return attacked
        adv, nat = attacked - start, clean - start
        lengths = jnp.sqrt(jnp.sum(adv * adv)) * jnp.sqrt(jnp.sum(nat * nat))
        cosine = jnp.sum(adv * nat) / jnp.where(lengths > 0, lengths, 1)
        share = jnp.asarray(beta, start.dtype)
        return start + share * jnp.maximum(cosine, 0) * nat + (1 - share) * adv

    return jax.tree.map(projected, old, adversarial, natural)
