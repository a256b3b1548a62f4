"""Rows of linear bounds, pushed from a variable of the network back to the image."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._affine import pull_affine
from jaxrobust.bounds._graph import Graph
from jaxrobust.bounds._lines import signed_parts
from jaxrobust.bounds._region import Region
from jaxrobust.bounds._rule import Interval, Node, rows_of

Intervals = Mapping[int, Interval]


def lower_bounds(
    graph: Graph,
    region: Region,
    at: int,
    rows: Array,
    intervals: Intervals,
    *,
    free: Mapping[int, Any] | None = None,
    stop: bool = False,
) -> Array:
    """Lower bounds `[s]` of rows of linear functions of a variable.

    A variable with several readers gets the sum of their rows; all of them come later in the list,
    so its own turn comes when the sum is complete.

    Args:
      graph: the network.
      region: the images.
      at: number of the variable.
      rows: `[s, *shape]` of it.
      intervals: of the variables that nonlinear operations read; with `stop` of what they make.
      free: parameters `[s, ...]` of relaxations, by the number of the variable that they make.
      stop: evaluate the rows at the results of nonlinear operations instead of relaxing these.

    Returns:
      `[s]`.
    """
    pending, total = {at: rows}, jnp.zeros(len(rows), rows.dtype)
    for node in reversed(graph.nodes):
        if node.out not in pending:
            continue
        rows = pending.pop(node.out)
        if stop and node.rule.relax is not None:
            total += _least(rows, intervals[node.out])
            continue
        pulled, offset = _pull(graph, node, rows, intervals, (free or {}).get(node.out))
        total += offset
        for variable, part in zip(node.variables, pulled, strict=True):
            pending[variable] = pending[variable] + part if variable in pending else part
    if 0 in pending:
        total += region.least(pending[0].reshape(len(total), -1))
    return total


def _pull(graph: Graph, node: Node, rows: Array, intervals: Intervals, free: Any) -> Any:
    if node.rule.relax is None:
        return pull_affine(node, rows, [graph.types[v] for v in node.variables])
    return node.rule.relax(node, [intervals[v] for v in node.variables], free)(rows)


def _least(rows: Array, interval: Interval) -> Array:
    """Of rows on a box."""
    below, above = signed_parts(rows)
    parts = below * rows_of(interval.lower) + above * rows_of(interval.upper)
    return jnp.sum(parts, range(1, rows.ndim))
