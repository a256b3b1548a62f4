"""Rows of linear bounds, pushed from a variable of the network back to the image."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._affine import pull_affine
from jaxrobust.bounds._graph import Graph
from jaxrobust.bounds._lines import signed_parts
from jaxrobust.bounds._region import Region, spread
from jaxrobust.bounds._rule import Interval, Node

Intervals = Mapping[int, Interval]


# Terms `[s, *shape]` of a variable -> their sums.
Totals = Callable[[Array, int], Array]


def whole(terms: Array, variable: int) -> Array:
    """The sum of each row, `[s]`."""
    return jnp.sum(terms, range(1, terms.ndim))


def lower_bounds(
    graph: Graph,
    region: Region,
    at: int,
    rows: Array,
    intervals: Intervals,
    *,
    free: Mapping[int, Any] | None = None,
    stop: bool = False,
    mirrored: bool = False,
    totals: Totals = whole,
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
      stop: evaluate the rows at the results of nonlinear operations instead of relaxing these;
        `totals` must be `whole`.
      mirrored: also bound minus the rows. Up to the first nonlinear operation one pass serves both.
      totals: how the terms of a row are summed; other sums than the whole ones need a box.

    Returns:
      `[s]`, or what `totals` makes of `s` rows; `mirrored` twice as many, those of minus the rows
      last.
    """
    pending: dict[int, Array] = {at: rows}
    found: list[Array] = []
    for node in reversed(graph.nodes):
        if node.out not in pending:
            continue
        if mirrored and node.rule.relax is not None:
            pending, found, mirrored = *_with_mirrored(pending, found), False
        rows = pending.pop(node.out)
        if stop and node.rule.relax is not None:
            found.append(_least(rows, intervals[node.out]))
            continue
        pulled, offset = _pull(graph, node, rows, intervals, (free or {}).get(node.out))
        if offset is not None:
            found.append(totals(offset, node.out))
        for variable, part in zip(node.variables, pulled, strict=True):
            pending[variable] = pending[variable] + part if variable in pending else part
    if mirrored:
        pending, found = _with_mirrored(pending, found)
    if 0 in pending and totals is whole:
        found.append(region.least(pending[0].reshape(len(pending[0]), -1)))
    elif 0 in pending:
        hull = Interval(*(x[None] for x in region.hull))
        found.append(totals(spread(pending[0], hull), 0))
    return functools.reduce(jnp.add, found)


def _with_mirrored(
    pending: Mapping[int, Array], found: Sequence[Array]
) -> tuple[dict[int, Array], list[Array]]:
    """Rows and sums, each followed by minus them."""
    both = {variable: jnp.concatenate([rows, -rows]) for variable, rows in pending.items()}
    return both, [jnp.concatenate([sums, -sums]) for sums in found]


def _pull(graph: Graph, node: Node, rows: Array, intervals: Intervals, free: Any) -> Any:
    if node.rule.relax is None:
        return pull_affine(node, rows, [graph.types[v] for v in node.variables])
    return node.rule.relax(node, [intervals[v] for v in node.variables], free)(rows)


def _least(rows: Array, interval: Interval) -> Array:
    """The least values of rows on a box, `[s]`; of a 0 at the lower end, as ties of rows go.

    As matrix products, because all images may share the rows.
    """
    below, above = (x.reshape(len(rows), -1) for x in signed_parts(rows))
    return below @ interval.lower.ravel() + above @ interval.upper.ravel()
