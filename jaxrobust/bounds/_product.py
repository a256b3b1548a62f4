"""The product of two values that both depend on the image: McCormick's planes."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxrobust.bounds._lines import signed_parts
from jaxrobust.bounds._rule import Interval, Node, Pull, Rule, rows_of


def _corners(node: Node, x: Interval, y: Interval) -> Interval:
    corners = [a * b for a in x for b in y]
    lower, upper = corners[0], corners[0]
    for corner in corners[1:]:
        lower, upper = jnp.minimum(lower, corner), jnp.maximum(upper, corner)
    return Interval(lower, upper)


def _relax(node: Node, intervals: Sequence[Interval], free: Any) -> Pull:
    """Below `y_l x + x_l y - x_l y_l`, above `y_u x + x_l y - x_l y_u`."""
    x, y = intervals

    def pull(rows: Array) -> tuple[tuple[Array, ...], Array]:
        below, above = signed_parts(rows)
        to_x = below * rows_of(y.lower) + above * rows_of(y.upper)
        to_y = rows * rows_of(x.lower)
        return (to_x, to_y), -to_x * rows_of(x.lower)

    return pull


PRODUCT = Rule(interval=_corners, relax=_relax, elementwise=True)
