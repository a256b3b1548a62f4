"""A network in half precision, for attacks whose successes are confirmed in float32."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.evaluation._programs import is_container
from jaxrobust.inputs import InputError, evaluation_mode
from jaxrobust.reasons import first_line

PRECISIONS = ("float32", "bfloat16", "float16")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Half:
    """A network whose arrays and images have half precision; logits have the images' type."""

    network: Any
    precision: str = field(metadata={"static": True})

    def __call__(self, images: Array) -> Array:
        """Images `[b, h, w, c]` -> logits `[b, k]`."""
        return self.network(images.astype(self.precision)).astype(images.dtype)


def in_half(logits_fn: Any, precision: str, images: np.ndarray) -> Half:
    """The network with its arrays in half precision.

    Args:
      logits_fn: the network as a pytree of its arrays.
      precision: "bfloat16" or "float16".
      images: `[n, h, w, c]` float32, for a test call.

    Raises:
      InputError: if it is not a pytree of its arrays, defines what attackers differentiate, or does
        not run in half precision.
    """
    if not is_container(logits_fn) or hasattr(logits_fn, "judge"):
        raise InputError(
            f"precision must be 'float32' for this network, got {precision!r}: half precision "
            "needs a pytree of its arrays without a method judge, such as models.logits_fn(model, "
            f"variables) or jax.tree_util.Partial(fn, params); got {logits_fn!r:.80}"
        )

    def narrowed(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        return array.astype(precision) if jnp.issubdtype(array.dtype, jnp.floating) else leaf

    half = Half(jax.tree.map(narrowed, logits_fn), precision)
    try:
        with evaluation_mode():
            jax.eval_shape(half, images[:1])
    except TypeError as error:
        raise InputError(
            f"precision must be 'float32' for this network, which does not run in {precision}: "
            f"{first_line(error)}"
        ) from error
    return half
