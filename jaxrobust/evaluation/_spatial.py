"""Rotations and translations as attacks of an evaluation."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxrobust.attacks import Attacked, spatial_grid, worst_of_k
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SpatialGrid:
    """`attacks.spatial_grid` with its settings bound: a pytree, so new limits do not recompile.

    Args:
      threat: `threats.spatial`.
      counts: points of the grid to the right, down, and of the angle.

    Example:
      >>> from jaxrobust import evaluation, threats
      >>> evaluation.SpatialGrid(threat=threats.spatial(30, 3)).counts
      (5, 5, 31)
    """

    threat: Any
    counts: tuple[int, int, int] = field(default=(5, 5, 31), metadata={"static": True})

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """The worst point of the grid for each image."""
        return spatial_grid(logits_fn, key, images, labels, threat=self.threat, counts=self.counts)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RandomTransform:
    """One random member of a threat per image: the average case, not an attack.

    Args:
      threat: the set that is drawn from.

    Example:
      >>> from jaxrobust import evaluation, threats
      >>> float(evaluation.RandomTransform(threat=threats.spatial(30, 3)).threat.max_degrees)
      30.0
    """

    threat: Any

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """The transformed images, whatever they do."""
        return worst_of_k(logits_fn, key, images, labels, threat=self.threat, k=1, clean=False)
