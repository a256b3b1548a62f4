"""A network and others beside it: one that is trained with it, one that is frozen."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrobust.networks._logits import LogitsFunction
from jaxrobust.networks._network import Network

NETWORK, TEACHER, HELPER = "network", "teacher", "helper"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Accompanied:
    """See `accompanied`.

    Attributes:
      network: the network.
      teacher: a network, or `None`.
      helper: a network with its weights, constants of this one, or `None`.
    """

    network: Any
    teacher: Any
    helper: Any

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        """The network's own first parameters, and the teacher's beside them."""
        own = self.network.init(key, images)
        if self.teacher is None:
            return own
        other = self.teacher.init(jax.random.fold_in(key, 1), images)
        params, state = zip(own, other, strict=True)
        names = (NETWORK, TEACHER)
        return dict(zip(names, params, strict=True)), dict(zip(names, state, strict=True))

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
    ) -> tuple[Any, Any]:
        """The network's output, or with the methods "teacher" and "helper" another one's logits.

        The helper is in evaluation mode throughout.
        """
        if method == HELPER and self.helper is not None:
            return self.helper(images), state
        options: Any = {"train": train, "key": key, "axis_name": axis_name, "method": method}
        if self.teacher is None:
            return self.network.apply(params, state, images, **options)
        name, chosen = NETWORK, self.network
        if method == TEACHER:
            name, chosen, options["method"] = TEACHER, self.teacher, None
        out, after = chosen.apply(params[name], state[name], images, **options)
        return out, state | {name: after}


def accompanied(
    network: Network, *, teacher: Network | None = None, helper: LogitsFunction | None = None
) -> Network:
    """A network with others beside it, for objectives that need them.

    Args:
      network: the network, whose logits those of the whole are.
      teacher: a network that is trained with it, with parameters and state of its own: the first
        ones of `network` are then under the name "network", the others under "teacher".
      helper: a network with its weights, which stay; constants of the network.

    Returns:
      A `Network` with the methods "teacher" and "helper", or `network` itself if it is alone.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models, networks
      >>> one, other = (networks.network(models.mlp(hidden=())) for _ in range(2))
      >>> both = networks.accompanied(one, teacher=other)
      >>> params, state = both.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
      >>> sorted(params)
      ['network', 'teacher']
    """
    return network if teacher is None and helper is None else Accompanied(network, teacher, helper)
