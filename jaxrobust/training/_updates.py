"""What a step does with its gradients: the optimizer, the parameter average, AWP."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxrobust.training._optimizer import kernels
from jaxrobust.training._state import TrainState


@dataclass(frozen=True)
class Averaging:
    """An exponential moving average of the parameters.

    Attributes:
      decay: of the average, in (0, 1).
      warmup_steps: the average is a copy of the parameters for so many steps; afterwards its decay
        is `min(decay, (1 + d) / (10 + d))`, `d` steps later: it forgets the start quickly. `None`
        for `decay` from the first step on.
      batch_stats: "live" evaluates the average with the running statistics of the trained network
        (the papers), "average" with their own average.
      copied_steps: without a warm-up: the average is a copy for so many steps, and then has its
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
