"""Interval bound propagation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.bounds._graph import traced
from jaxrobust.bounds._intermediate import by_intervals
from jaxrobust.bounds._problem import box_problem
from jaxrobust.bounds._rule import Interval, Known


def ibp(fn: Callable[[Array], Array], lower: ArrayLike, upper: ArrayLike) -> tuple[Array, Array]:
    """Intervals of a network's outputs over boxes of images, by interval arithmetic.

    The cheapest bounds, about twice the cost of a forward pass, and the loosest: useful for
    networks that were trained with them. `margins` with method "ibp" is tighter than the difference
    of two of these intervals, because it merges the last layer with the difference.

    Args:
      fn: `[b, h, w, c]` -> `[b, k]`, which acts on each image alone. It is traced for one image.
      lower: `[b, h, w, c]`, least pixel values.
      upper: `[b, h, w, c]`, largest pixel values.

    Returns:
      Lower and upper bounds `[b, k]`. Float rounding is not accounted for: see `margins`.

    Raises:
      UnsupportedPrimitive: if `fn` has an operation that no rule bounds.
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds
      >>> def fn(x): return jnp.maximum(x.sum((1, 2)) - 1, 0) @ jnp.array([[1.0, -1.0]])
      >>> x = jnp.full((1, 2, 2, 1), 0.5)
      >>> low, high = bounds.ibp(fn, x - 0.25, x + 0.25)
      >>> low.tolist(), high.tolist()
      ([[0.0, -2.0]], [[2.0, 0.0]])

    References:
      Gowal et al., On the Effectiveness of Interval Bound Propagation for Training Verifiably
      Robust Models, 2018 (arXiv:1810.12715).
    """
    problem = box_problem(lower, upper, shape=None)
    graph = traced(fn, problem.shape[1:], problem.dtype, name="fn")

    def of_one(*arrays: Array) -> Interval:
        if isinstance(graph.output, Known):
            value = jnp.asarray(graph.output.value)[0]
            return Interval(value, value)
        found = by_intervals(graph, problem.region(*arrays))[graph.output]
        return Interval(_or_infinite(found.lower[0], -1), _or_infinite(found.upper[0], 1))

    with jax.default_matmul_precision("highest"):
        return tuple(jax.vmap(of_one)(*problem.arrays))  # type: ignore[return-value]


def _or_infinite(bound: Array, sign: int) -> Array:
    """NaN, where intervals overflowed, is no bound."""
    return jnp.where(jnp.isnan(bound), sign * jnp.inf, bound)
