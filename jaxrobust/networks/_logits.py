"""A network with its weights as one callable pytree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.networks import _equinox, _nnx
from jaxrobust.networks._find import library_of, network
from jaxrobust.networks._linen import Linen, split


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitsFunction:
    """See `logits_fn`; the three are children of the pytree.

    Attributes:
      params: the network's parameters.
      state: its state, such as running statistics.
      network: the network.
    """

    params: Any
    state: Any
    network: Any

    def __call__(self, images: Array) -> Array:
        """Images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, in evaluation mode."""
        return self.network.apply(self.params, self.state, images, train=False)[0]

    def with_features(self, images: Array) -> tuple[Array, dict[str, Array]]:
        """Logits, and the intermediate features that the network names ("stage1", ...)."""
        return self.network.apply(self.params, self.state, images, train=False, method="features")[
            0
        ]


def logits_fn(model: Any, *variables: Any) -> LogitsFunction:
    """The network in evaluation mode as a logits function, for attacks and evaluations.

    It is a pytree whose leaves are the weights: passed to a jitted function as an argument, new
    weights of the same network do not recompile.

    Args:
      model: a network of any library, see `networks.network`.
      *variables: its weights. Linen: what `model.init` returns. NNX: nothing, the module has them.
        Equinox: nothing, or the `State` that `eqx.nn.make_with_state` returned with the module.
        Haiku and networks of no library: parameters and state.

    Returns:
      A callable, images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`; its `with_features` returns
      the intermediate features too.

    Raises:
      InputError: if the weights are not those that such a network has.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.mlp(hidden=())
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
      >>> models.logits_fn(model, variables)(jnp.zeros((2, 4, 4, 1))).shape
      (2, 10)
    """
    library, count = library_of(type(model)), len(variables)
    if library == "nnx" and count == 0:
        found, params, state = _nnx.bound(model)
        return LogitsFunction(params, state, found)
    if library == "equinox" and count <= 1:
        layers, params, state = _equinox.bound(model, *variables)
        return LogitsFunction(params, state, layers)
    of_linen = library == "linen" or isinstance(model, Linen)
    if of_linen and count == 1 and isinstance(variables[0], Mapping):
        return LogitsFunction(*split(variables[0]), network(model))
    if count == 2 and library not in ("nnx", "equinox"):
        return LogitsFunction(variables[0], variables[1], network(model))
    raise InputError(
        f"variables must be the weights of the network: what init returns (Linen), nothing (NNX), "
        f"its State or nothing (Equinox), else parameters and state; got {count} for {model!r:.80}"
    )
