"""A Flax model with its variables as one callable pytree."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogitsFunction:
    """See `logits_fn`."""

    variables: Any
    model: Any = field(metadata={"static": True})

    def __call__(self, images: Array) -> Array:
        """Images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, in evaluation mode."""
        return self.model.apply(self.variables, images, train=False)

    def with_features(self, images: Array) -> tuple[Array, dict[str, Array]]:
        """Logits, and the intermediate features that the network names ("stage1", ...)."""
        logits, state = self.model.apply(
            self.variables, images, train=False, mutable=["intermediates"]
        )
        sown = state.get("intermediates", {})
        return logits, {name: values[-1] for name, values in sown.items()}


def logits_fn(model: Any, variables: Any) -> LogitsFunction:
    """The model in evaluation mode as a logits function, for attacks and evaluations.

    It is a pytree whose leaves are the variables: passed to a jitted function as an argument,
    new parameters of the same model do not recompile.

    Args:
      model: a Linen module with `__call__(images, *, train)`.
      variables: what `model.init` returns.

    Returns:
      A callable, images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`; its `with_features` returns
      the intermediate features too.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.mlp(hidden=())
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
      >>> models.logits_fn(model, variables)(jnp.zeros((2, 4, 4, 1))).shape
      (2, 10)
    """
    return LogitsFunction(variables, model)
