"""Affine operations: a white list. Linear bounds go back through their transposes.

A derivative cannot tell whether an operation is affine: `round` and `stop_gradient` have one that
says nothing about their values. So each affine primitive is listed by name.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.bounds._rule import Interval, Known, Node, Rule, rows_of
from jaxrobust.convolutions import fast_on_cpu


def affine(*, interval: Callable[..., Interval] | None = None, linear: bool = False) -> Rule:
    """The rule of an operation that is affine in its variable operands.

    Args:
      interval: `(node, *intervals) -> Interval`; default: the operation on both ends, which is
        right where all weights are at least 0 (sums, rearrangements).
      linear: whether it is 0 at 0, so that no offset has to be computed.

    Returns:
      The rule.

    Example:
      >>> from jaxrobust import bounds
      >>> bounds.register("reduce_sum", bounds.affine(linear=True))
    """
    return Rule(interval=ends if interval is None else interval, linear=linear)


def ends(node: Node, *intervals: Interval) -> Interval:
    """The operation on both ends: no weight is negative."""
    lower, upper = zip(*intervals, strict=True)
    return Interval(node.apply(*lower), node.apply(*upper))


def bilinear(node: Node, interval: Interval) -> Interval:
    """A product with a constant, of centre and radius; the radius sees absolute weights."""
    centre = node.apply((interval.lower + interval.upper) / 2)
    radius = (interval.upper - interval.lower) / 2
    (constant,) = (x.value for x in node.operands if isinstance(x, Known))
    absolute = node.apply(radius, known=jnp.abs(constant))
    return Interval(centre - absolute, centre + absolute)


def _difference(node: Node, *intervals: Interval) -> Interval:
    """`a - b`, either of which may be constant: the ends of `b` are crossed."""
    if len(intervals) == 2:
        (a, b) = intervals
        return Interval(node.apply(a.lower, b.upper), node.apply(a.upper, b.lower))
    if isinstance(node.operands[0], Known):
        return _crossed(node, *intervals)
    return ends(node, *intervals)


def _crossed(node: Node, interval: Interval) -> Interval:
    return Interval(node.apply(interval.upper), node.apply(interval.lower))


def pull_affine(node: Node, rows: Array, shapes: list[Any]) -> Any:
    """Rows of a result as rows of its variable operands, and offsets `[s, *node.shape]` or `None`.

    Args:
      node: an affine operation.
      rows: `[s, *node.shape]`.
      shapes: `jax.ShapeDtypeStruct` of the variable operands.

    Returns:
      `(rows of the operands, offsets)`.
    """
    zeros = [jnp.zeros(x.shape, x.dtype) for x in shapes]
    at_zero, transpose = jax.vjp(fast_on_cpu(node.apply), *zeros)
    pulled = jax.vmap(transpose)(rows.astype(at_zero.dtype))
    if node.rule.linear:
        return pulled, None
    return pulled, rows * rows_of(at_zero)


def is_variable(operand: Any) -> bool:
    """Whether an operand depends on the image."""
    return not isinstance(operand, Known)


SUM = affine()
DIFFERENCE = affine(interval=_difference)
NEGATION = affine(interval=_crossed, linear=True)
TIMES = affine(interval=bilinear, linear=True)
LINEAR = affine(linear=True)  # rearrangements and sums: 0 at 0, all weights at least 0


def first_only(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """Only the first operand may depend on the image: indices, padding values and predicates."""
    return LINEAR if not any(map(is_variable, operands[1:])) else None


def one_variable(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """Products of a variable and a constant."""
    return TIMES if sum(map(is_variable, operands)) == 1 else None


def divided(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """Divisions by a constant."""
    return TIMES if not is_variable(operands[1]) else None


def selected(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """`select_n` whose predicate is constant."""
    return SUM if not is_variable(operands[0]) else None


def converted(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """Conversions between floating types of at least 32 bits; narrower ones round too coarsely."""
    dtype = np.dtype(params["new_dtype"])
    wide = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize >= 4
    return LINEAR if wide else None
