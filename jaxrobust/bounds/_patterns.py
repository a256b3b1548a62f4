"""Operations that are tighter, or possible at all, when seen together.

Variables are compared by identity: equal values of different variables prove nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrobust.bounds._curves import SQUARE
from jaxrobust.bounds._relu import leaky
from jaxrobust.bounds._rule import Known, Node, Rule
from jaxrobust.bounds._silu import SILU
from jaxrobust.inputs import concrete

MadeBy = Mapping[int, tuple[str, Node]]


def recognised(
    name: str, operands: Sequence[Any], made_by: MadeBy, types: Sequence[Any]
) -> tuple[Rule | None, list[Any]]:
    """The rule of a known pattern that ends in an operation.

    Args:
      name: of the operation's primitive.
      operands: `Known` values or numbers of variables.
      made_by: what made each variable: the primitive's name and the node.
      types: shape and dtype of each variable.

    Returns:
      The rule and the operands that it takes; `None` and `operands` if there is no pattern.
    """
    found = None
    if name == "mul":
        found = _square(operands) or _silu(operands, made_by)
    elif name == "max":
        found = _leaky_max(operands, made_by)
    elif name == "select_n":
        found = _leaky_select(operands, made_by)
    return found if found is not None else (None, list(operands))


Found = tuple[Rule, list[Any]] | None


def _square(operands: Sequence[Any]) -> Found:
    first, second = operands
    return (SQUARE, [first]) if not isinstance(first, Known) and first == second else None


def _silu(operands: Sequence[Any], made_by: MadeBy) -> Found:
    """x times logistic of the same x."""
    for x, share in (operands, operands[::-1]):
        name, inner = _maker(share, made_by)
        if inner is not None and name == "logistic" and inner.operands == (x,):
            return SILU, [x]
    return None


def _leaky_max(operands: Sequence[Any], made_by: MadeBy) -> Found:
    """max(x, a x)."""
    if any(isinstance(x, Known) for x in operands):
        return None
    for x, scaled in (operands, operands[::-1]):
        slope = _multiple(scaled, x, made_by)
        if slope is not None:
            return leaky(slope), [x]
    return None


def _leaky_select(operands: Sequence[Any], made_by: MadeBy) -> Found:
    """`select_n(x >= 0, a x, x)`, or with another comparison of x and 0."""
    if len(operands) != 3:
        return None
    predicate, if_false, if_true = operands
    name, compared = _maker(predicate, made_by)
    if compared is None or name not in ("ge", "gt", "le", "lt"):
        return None
    x, zero = compared.operands
    flipped = isinstance(x, Known)
    if flipped:
        x, zero = zero, x
    if not isinstance(zero, Known) or not _all(zero.value, lambda v: v == 0):
        return None
    positive_if_true = (name in ("ge", "gt")) != flipped
    positive, negative = (if_true, if_false) if positive_if_true else (if_false, if_true)
    if isinstance(positive, Known) or positive != x:
        return None
    slope = _multiple(negative, x, made_by)
    return None if slope is None else (leaky(slope), [x])


def _multiple(value: Any, x: Any, made_by: MadeBy) -> Any:
    """The a in [0, 1] with `value` = a x, or `None`; a constant 0 counts."""
    if isinstance(x, Known):
        return None
    if isinstance(value, Known):
        return jnp.asarray(value.value) if _all(value.value, lambda v: v == 0) else None
    name, node = _maker(value, made_by)
    if node is None or name != "mul" or len(node.operands) != 2:
        return None
    for factor, inner in (node.operands, node.operands[::-1]):
        if isinstance(factor, Known) and not isinstance(inner, Known) and inner == x:
            inside = _all(factor.value, lambda v: (v >= 0) & (v <= 1))
            return jnp.asarray(factor.value) if inside else None
    return None


def _maker(operand: Any, made_by: MadeBy) -> tuple[str, Node | None]:
    return ("", None) if isinstance(operand, Known) else made_by.get(operand, ("", None))


def _all(value: Any, holds: Any) -> bool:
    """Whether a property is known to hold for all values of a constant."""
    values = concrete(value)
    return values is not None and bool(np.all(holds(np.asarray(values))))
