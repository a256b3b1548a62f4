"""Residual networks by depth: their blocks, and factories that differ in nothing else."""

from collections.abc import Callable
from typing import TypeVar

Factory = TypeVar("Factory", bound=Callable)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}  # of the four stages
BOTTLENECKS = (50,)  # the depths with three convolutions a block

WIDTH = "channels of the first stage; each later one has twice as many."
BOTTLENECK_WIDTH = "a quarter of the first stage's channels; each later stage has twice as many."
DOCUMENTATION = """{summary}

Args:
  num_classes: number of classes `k`.
  width: {width}
{options}
  mean: subtracted from every channel, inside the network.
  std: divides every channel, inside the network.
  bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
  dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
    statistics and logits stay float32.
  remat: recompute each block in the backward pass: less memory for about a third more time.

Returns:
  A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. The features
  "stage1" to "stage4" and "pooled" are sown into the collection "intermediates".

Raises:
  ValueError: if an option is unknown.

Example:
  >>> import jax, jax.numpy as jnp
  >>> from jaxrobust import models
  >>> model, images = models.{name}(), jnp.zeros((1, 32, 32, 3))
  >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
  {parameters}

References:
  {references}
"""


def named(
    factory: Factory,
    family: str,
    depth: int,
    *,
    summary: str,
    options: str,
    parameters: int,
    references: str,
) -> Factory:
    """The factory of one depth under its public name, with its documentation.

    Args:
      factory: of the network.
      family: the name without the depth.
      depth: of the network.
      summary: the documentation's first lines.
      options: what the documentation says of the family's own options.
      parameters: number of parameters of the default network.
      references: the papers.

    Returns:
      `factory`; help, pickles and experiments find it under its name.
    """
    name = f"{family}{depth}"
    factory.__name__ = factory.__qualname__ = name
    factory.__doc__ = DOCUMENTATION.format(
        name=name,
        width=BOTTLENECK_WIDTH if depth in BOTTLENECKS else WIDTH,
        summary=summary.format(depth=depth).strip(),
        options=options.strip("\n"),
        parameters=parameters,
        references=references.strip(),
    )
    return factory
