"""A mixture of two trained networks with a constant weight: nothing is left to train."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrobust import mixing
from jaxrobust.inputs import as_number
from jaxrobust.networks import LogitsFunction


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """Two networks and a weight, all of them constants. See `mixture`."""

    mixed: mixing.Mixed

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        """No parameters and no statistics."""
        return {}, {}

    def apply(
        self,
        params: Any,
        state: Any,
        images: Array,
        *,
        train: bool,
        key: Array | None = None,
        axis_name: str | None = None,
        method: str | None = None,
    ) -> tuple[Array, Any]:
        """Log-probabilities `[b, k]`."""
        return self.mixed(images), state


def mixture(
    *,
    std: Any,
    rob: Any,
    alpha: float,
    num_classes: int = 10,
    std_scale: float = 1.0,
    rob_scale: float = 1.0,
) -> Mixture:
    r"""Two trained networks, whose probabilities are averaged with constant weights.

    .. math:: (1 - \alpha)\,\mathrm{softmax}(s_a z_a) + \alpha\,\mathrm{softmax}(s_r z_r)

    It has no parameters: an experiment with `epochs=0` evaluates it, and
    `sweep={"model.alpha": (...)}` draws its line. The weight is an argument of every compiled
    program, so another one does not recompile.

    Args:
      std: the accurate base with its weights, as `models.logits_fn` makes it. In an experiment
        file: a run's folder, or `{"weights": FILE, "network": NAME}` and the network's arguments.
      rob: the robust base, likewise.
      alpha: weight of the robust base, in [0, 1].
      num_classes: of both bases.
      std_scale: factor on the accurate base's logits.
      rob_scale: factor on the robust base's logits.

    Returns:
      A `networks.Network`: images `[b, h, w, c]` in [0, 1] -> log-probabilities
      `[b, num_classes]`.

    Raises:
      ValueError: if a base is no network with weights, or `alpha` is outside of [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> base, images = models.digits_cnn(width=4), jnp.zeros((2, 8, 8, 1))
      >>> std = rob = models.logits_fn(base, base.init(jax.random.key(0), images))
      >>> model = models.mixture(std=std, rob=rob, alpha=0.8)
      >>> params, state = model.init(jax.random.key(0), images)
      >>> params, model.apply(params, state, images, train=False)[0].shape
      ({}, (2, 10))

    References:
      Bai et al., 2023 (arXiv:2301.12554), Section 4.
    """
    as_number(alpha, name="alpha", low=0, high=1)
    for name, base in (("std", std), ("rob", rob)):
        if not isinstance(base, LogitsFunction):
            raise ValueError(
                f"{name} must be a network with its weights, models.logits_fn(model, variables), "
                f"got {base!r}; names of runs and files are for experiment files"
            )
    return Mixture(mixing.mixed(std, rob, alpha=alpha, std_scale=std_scale, rob_scale=rob_scale))
