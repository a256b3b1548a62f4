"""Searches over transforms with their settings bound, as pytrees: new limits do not recompile."""

from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._spatial_grid import check_grid, spatial_grid
from jaxrobust.attacks._spatial_random import worst_of_k
from jaxrobust.attacks._spatial_search import Inner, searched_part
from jaxrobust.inputs import as_count
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SpatialGrid:
    """`attacks.spatial_grid` with its settings bound.

    Args:
      threat: `threats.spatial`, or a composition of one with others.
      counts: numbers of horizontal shifts, vertical shifts and angles in the grid.
      inner: for a composed threat, the attack on its other parts.

    Raises:
      ValueError: if the threat has no grid, `inner` does not fit it, or a count is less than 1.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.SpatialGrid(threat=threats.spatial(30, 3)).counts
      (5, 5, 31)
    """

    threat: Any
    counts: tuple[int, int, int] = field(default=(5, 5, 31), metadata={"static": True})
    inner: Inner | None = field(default=None, metadata={"static": True})

    def __post_init__(self) -> None:
        check_grid(self.counts)
        if hasattr(self.threat, "project"):
            searched_part(self.threat, self.inner)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """The worst point of the grid for each image."""
        options: dict[str, Any] = {"counts": self.counts, "inner": self.inner}
        return spatial_grid(logits_fn, key, images, labels, threat=self.threat, **options)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class WorstOfK:
    """`attacks.worst_of_k` with its settings bound.

    Args:
      threat: any threat; its random starts are the draws.
      k: number of draws.
      clean: whether the unchanged image is also a candidate.

    Raises:
      ValueError: if `k` is less than 1.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.WorstOfK(threat=threats.spatial(30, 3)).k
      10
    """

    threat: Any
    k: int = field(default=10, metadata={"static": True})
    clean: bool = field(default=True, metadata={"static": True})

    def __post_init__(self) -> None:
        as_count(self.k, name="k")

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """The worst draw for each image."""
        options: dict[str, Any] = {"k": self.k, "clean": self.clean}
        return worst_of_k(logits_fn, key, images, labels, threat=self.threat, **options)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class RandomTransform:
    """One random member of a threat per image: an average case, not an attack.

    Args:
      threat: the set to draw from.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> float(attacks.RandomTransform(threat=threats.spatial(30, 3)).threat.max_degrees)
      30.0
    """

    threat: Any

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """The transformed images, misclassified or not."""
        return worst_of_k(logits_fn, key, images, labels, threat=self.threat, k=1, clean=False)
