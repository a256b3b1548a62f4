"""alpha-CROWN: the lines of the relaxations, optimised for each row."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._backward import Intervals
from jaxrobust.bounds._graph import Graph
from jaxrobust.bounds._rule import Free

RATE, DECAY = 0.5, 0.98
MOMENTUM, SECOND_MOMENT, SAFE = 0.9, 0.999, 1e-8  # Adam's

Parameters = dict[int, tuple[Free, ...]]


def parameters_of(graph: Graph, intervals: Intervals, at: int) -> Parameters:
    """The free parameters of the relaxations that come before a variable."""
    found = {}
    for node in graph.nodes:
        if node.out <= at and node.rule.free is not None:
            inside = [intervals[v] for v in node.variables]
            found[node.out] = node.rule.free(node, inside)
    return found


def best_bounds(
    evaluate: Callable[[Mapping[int, Any]], Array], parameters: Parameters, iterations: int
) -> Array:
    """The largest bound of each row among those that Adam visits.

    Rows do not interact: each ascends its own bound. A row that turns NaN keeps its best. To
    derivatives the parameters are constants.

    Args:
      evaluate: parameters by node, each `[s, ...]` -> lower bounds `[s]`.
      parameters: their starts and ranges.
      iterations: evaluations of `evaluate`, the first of them at the start.

    Returns:
      `[s]`.
    """
    rows = jax.eval_shape(evaluate, _at(parameters, lambda f: f.start[None])).shape[0]
    parameters = jax.lax.stop_gradient(parameters)
    start = _at(parameters, lambda f: jnp.broadcast_to(f.start[None], (rows, *f.start.shape)))
    low, high = (_at(parameters, operator.itemgetter(side)) for side in (1, 2))

    def summed(values: Any) -> tuple[Array, Array]:
        bounds = evaluate(values)
        return jnp.sum(bounds), bounds

    def step(i: Array, state: Any) -> Any:
        values, first, second, best = state
        grads, bounds = jax.grad(summed, has_aux=True)(values)
        grads = jax.lax.stop_gradient(grads)
        best = _better(bounds, best)
        first = jax.tree.map(lambda m, g: MOMENTUM * m + (1 - MOMENTUM) * g, first, grads)
        second = jax.tree.map(
            lambda v, g: SECOND_MOMENT * v + (1 - SECOND_MOMENT) * g**2, second, grads
        )
        count = i.astype(best.dtype)
        rate = RATE * DECAY**count / (1 - MOMENTUM ** (count + 1))
        unbias = 1 / (1 - SECOND_MOMENT ** (count + 1))

        def moved(x: Array, m: Array, v: Array, a: Array, b: Array) -> Array:
            # Clipped outside of what is differentiated: at the ends a clip halves it.
            return jnp.clip(x + rate * m / (jnp.sqrt(v * unbias) + SAFE), a[None], b[None])

        return jax.tree.map(moved, values, first, second, low, high), first, second, best

    zeros = jax.tree.map(jnp.zeros_like, start)
    kind = jax.eval_shape(evaluate, start)
    state = (start, zeros, zeros, jnp.full(kind.shape, -jnp.inf, kind.dtype))
    values, _, _, best = jax.lax.fori_loop(0, iterations - 1, step, state)
    return _better(evaluate(values), best)


def _at(parameters: Parameters, part: Callable[[Free], Array]) -> dict[int, Any]:
    return {out: tuple(map(part, each)) for out, each in parameters.items()}


def _better(bounds: Array, best: Array) -> Array:
    return jnp.where(bounds > best, bounds, best)  # not NaN
