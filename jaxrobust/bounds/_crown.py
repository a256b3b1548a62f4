"""CROWN: linear bounds, pushed back from the outputs to the image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.bounds._alpha import best_bounds, parameters_of
from jaxrobust.bounds._backward import Intervals, lower_bounds
from jaxrobust.bounds._graph import Graph, traced
from jaxrobust.bounds._intermediate import Intermediate, by_crown, by_intervals, rows_at_once
from jaxrobust.bounds._problem import Box, Problem, problem_of
from jaxrobust.bounds._region import Region
from jaxrobust.bounds._rule import Known
from jaxrobust.inputs import InputError, as_choice, as_count, as_number


def crown(
    fn: Callable[[Array], Array],
    images: ArrayLike,
    *,
    threat: Any = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    spec: ArrayLike | None = None,
    intermediate: Intermediate = "crown",
    iterations: int = 0,
    box: Box = (0.0, 1.0),
) -> Array:
    r"""Lower bounds of linear functions of a network's outputs over a ball, by CROWN.

    .. math:: \min_{x'} \; c_r \cdot f(x') \ge \text{bound}_r

    over all images x' in the ball of `threat` and in the box, or between `lower` and `upper`. An
    upper bound is minus the bound of minus the row.

    Args:
      fn: `[b, h, w, c]` -> `[b, k]`, which acts on each image alone. It is traced for one image, so
        a network in training mode cannot give a wrong number.
      images: `[b, h, w, c]` in [0, 1]. With `lower` and `upper` only their shape is used.
      threat: `threats.linf`, `l2` or `l1`. Its radius may be traced.
      lower: `[b, h, w, c]`, least pixel values, in place of `threat`.
      upper: `[b, h, w, c]`, largest pixel values.
      spec: rows c, `[s, k]` or `[b, s, k]`; default the identity: the outputs themselves.
      intermediate: how values inside the network are bounded: by "crown" itself, which costs a
        backward pass for each of them, or by "ibp" (the method known as CROWN-IBP).
      iterations: of alpha-CROWN, which optimises the relaxations of each row; 0 and 1 are CROWN.
        To derivatives the relaxations that it finds are constants.
      box: least and largest pixel value, with which the ball of `threat` is cut; `None` for the
        plain ball.

    Returns:
      `[b, s]`. Float rounding is not accounted for: see `margins`. Overflow gives -inf.

    Raises:
      UnsupportedPrimitive: if `fn` has an operation that no rule bounds.
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds, threats
      >>> def fn(x): return jnp.maximum(x.sum((1, 2)) - 1, 0) @ jnp.array([[1.0, -1.0]])
      >>> x = jnp.full((1, 2, 2, 1), 0.5)
      >>> bounds.crown(fn, x, threat=threats.linf(0.125)).tolist()
      [[0.5, -1.5]]

    References:
      Zhang et al., Efficient Neural Network Robustness Certification with General Activation
      Functions, 2018 (arXiv:1811.00866). Xu et al., Fast and Complete: Enabling Complete Neural
      Network Verification with Rapid and Massively Parallel Incomplete Verifiers, 2021
      (arXiv:2011.13824), for the optimised slopes.
    """
    as_choice(intermediate, name="intermediate", choices=("crown", "ibp"))
    as_count(iterations, name="iterations", least=0)
    problem = problem_of(images, threat, lower, upper, box)
    graph = traced(fn, problem.shape[1:], problem.dtype, name="fn")
    classes, dtype = _outputs(graph)
    rows = jnp.eye(classes, dtype=dtype)
    if spec is not None:
        rows = jnp.asarray(as_number(spec, name="spec")).astype(dtype)
    b = problem.shape[0]
    if rows.ndim not in (2, 3) or rows.shape[-1] != classes or rows.shape[:-2] not in ((), (b,)):
        raise InputError(
            f"spec must be rows of {classes} numbers, [s, {classes}] or [{b}, s, {classes}], got "
            f"shape {rows.shape}"
        )
    rows = jnp.broadcast_to(rows, (problem.shape[0], *rows.shape[-2:]))
    return bounds_of_rows(graph, problem, rows, intermediate, iterations)


def _outputs(graph: Graph) -> tuple[int, Any]:
    """How many there are, and their dtype."""
    output = graph.output
    kind = jnp.asarray(output.value) if isinstance(output, Known) else graph.types[output]
    return kind.shape[1], kind.dtype


def bounds_of_rows(
    graph: Graph, problem: Problem, rows: Array, intermediate: Intermediate, iterations: int
) -> Array:
    """Lower bounds `[b, s]` of rows `[b, s, k]`, each image on its own."""

    def of_one(rows: Array, *arrays: Array) -> Array:
        if isinstance(graph.output, Known):
            return rows @ jnp.asarray(graph.output.value)[0]
        region = problem.region(*arrays)
        intervals = (by_crown if intermediate == "crown" else by_intervals)(graph, region)

        def bound(rows: Array) -> Array:
            return _optimised(graph, region, rows[:, None], intervals, iterations)

        return in_chunks(bound, rows)

    with jax.default_matmul_precision("highest"):
        found = jax.vmap(of_one)(rows, *problem.arrays)
    return jnp.where(jnp.isnan(found), -jnp.inf, found)


def in_chunks(bound: Callable[[Array], Array], rows: Array) -> Array:
    """Bounds of rows `[s, k]`, not too many at once."""
    if len(rows) <= rows_at_once():
        return bound(rows)
    return jax.lax.map(lambda row: bound(row[None])[0], rows, batch_size=rows_at_once())


def _optimised(
    graph: Graph, region: Region, rows: Array, intervals: Intervals, iterations: int
) -> Array:
    """Bounds `[s]` of rows of the output, after alpha-CROWN if there are iterations."""

    def bound(free: Any) -> Array:
        return lower_bounds(graph, region, graph.output, rows, intervals, free=free)

    parameters = parameters_of(graph, intervals, graph.output) if iterations > 1 else {}
    return best_bounds(bound, parameters, iterations) if parameters else bound(None)
