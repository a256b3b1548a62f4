"""Intervals of the values inside a network: by interval arithmetic, or by CROWN."""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._backward import Intervals, lower_bounds
from jaxrobust.bounds._colours import Colours, colours_of
from jaxrobust.bounds._graph import Graph
from jaxrobust.bounds._region import Region
from jaxrobust.bounds._rule import Interval, Known, Node

Intermediate = Literal["crown", "ibp"]
CHUNKS = {"cpu": 32}  # rows that are pushed back at once: on CPU as many as a cache holds
CHUNK = 512  # elsewhere


def rows_at_once() -> int:
    """How many rows one pass takes; each image of a batch has as many."""
    return CHUNKS.get(jax.default_backend(), CHUNK)


def by_intervals(graph: Graph, region: Region) -> dict[int, Interval]:
    """Intervals of all variables by interval arithmetic.

    On a ball that is no box, values that depend on the image through affine operations alone get
    their exact bounds where something else reads them.
    """
    found = {0: Interval(*(x[None] for x in region.hull))}
    linear, exact = {0}, _ends_of_affine_part(graph)
    for node in graph.nodes:
        is_linear = node.rule.relax is None and linear.issuperset(node.variables)
        if is_linear:
            linear.add(node.out)
        if is_linear and not region.is_box and node.out in exact:
            found[node.out] = by_rows(graph, region, node.out, {})
        else:
            found[node.out] = node.rule.interval(node, *(found[v] for v in node.variables))
    return found


def _ends_of_affine_part(graph: Graph) -> set[int]:
    """Variables at the end of the affine part: what else reads them is not affine in the image."""
    linear, ends = {0}, {graph.output} if not isinstance(graph.output, Known) else set()
    for node in graph.nodes:
        if node.rule.relax is None and linear.issuperset(node.variables):
            linear.add(node.out)
        else:
            ends.update(node.variables)
    return (ends & linear) - {0}


def by_crown(graph: Graph, region: Region) -> dict[int, Interval]:
    """Intervals of the variables that nonlinear operations read, each by a backward pass.

    The image has its hull, and the result of an elementwise operation the image of its interval.
    """
    found = {0: Interval(*(x[None] for x in region.hull))}
    makers = {node.out: node for node in graph.nodes}
    for node in graph.nodes:
        if node.rule.relax is None:
            continue
        for variable in node.variables:
            if variable not in found:
                found[variable] = _crown_interval(graph, region, makers[variable], found)
    return found


def _crown_interval(graph: Graph, region: Region, maker: Node, found: Intervals) -> Interval:
    if maker.rule.elementwise:
        return maker.rule.interval(maker, *(found[v] for v in maker.variables))
    return by_rows(graph, region, maker.out, found)


def by_rows(graph: Graph, region: Region, at: int, intervals: Intervals) -> Interval:
    """Interval of a variable by a backward pass from each of its entries, up and down.

    Neurons that see different pixels of a box share a pass.
    """
    colours = colours_of(graph, at) if region.is_box else None
    if colours is not None:
        return _by_colours(graph, region, at, intervals, colours)
    kind = graph.types[at]
    size = math.prod(kind.shape)

    def bounds(entries: Array) -> Array:
        """`[n]` entries -> `[2 n]`: their lower bounds, and those of minus them."""
        one = jax.nn.one_hot(entries, size, dtype=kind.dtype).reshape(-1, *kind.shape)
        return lower_bounds(graph, region, at, one, intervals, mirrored=True)

    chunks = -(-2 * size // rows_at_once())
    if chunks <= 1:
        both = bounds(jnp.arange(size)).reshape(2, size)
    else:
        each = -(-size // chunks)
        entries = jnp.arange(chunks * each).reshape(chunks, each)  # past the end: rows of zeros
        parts = jax.lax.map(bounds, entries).reshape(chunks, 2, each)
        both = jnp.moveaxis(parts, 1, 0).reshape(2, -1)[:, :size]
    return Interval(both[0].reshape(kind.shape), -both[1].reshape(kind.shape))


def _by_colours(
    graph: Graph, region: Region, at: int, intervals: Intervals, colours: Colours
) -> Interval:
    """Interval of a variable by a backward pass for each colour and channel, up and down."""
    kind = graph.types[at]

    def bounds(colour: Array) -> Array:
        """Lower bounds of the neurons of a colour, and of minus them: `[2 c, *each]`."""
        one = colours.rows(colour, kind.dtype)
        return lower_bounds(
            graph, region, at, one, intervals, mirrored=True,
            totals=lambda terms, variable: colours.totals(terms, variable, colour),
        )  # fmt: skip

    channels, numbers = kind.shape[3], jnp.arange(colours.number)
    at_once = max(rows_at_once() // (2 * channels), 1)
    parts = next(
        n
        for n in range(1, len(numbers) + 1)
        if len(numbers) % n == 0 and len(numbers) // n <= at_once
    )
    if parts == 1:
        found = jax.vmap(bounds)(numbers)
    else:
        found = jax.lax.map(jax.vmap(bounds), numbers.reshape(parts, -1))
    both = colours.uncoloured(found.reshape(colours.number, 2 * channels, *colours.each))
    low, high = both[:channels], -both[channels:]
    return Interval(*(jnp.moveaxis(x, 0, -1)[None] for x in (low, high)))
