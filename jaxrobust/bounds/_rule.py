"""What a rule is: how intervals and linear bounds pass a primitive; and the table of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.extend.core as jex
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError


class Interval(NamedTuple):
    """Elementwise bounds of a value.

    Attributes:
      lower: of any shape.
      upper: of the same shape.
    """

    lower: Array
    upper: Array


class Known(NamedTuple):
    """An operand that does not depend on the image.

    Attributes:
      value: an array; it may be traced.
    """

    value: Any


class Node(NamedTuple):
    """One operation of a network on values that depend on the image.

    Attributes:
      rule: how bounds pass it.
      bind: the operation as a function of all operands.
      name: of the primitive.
      params: of the primitive.
      operands: in order; a `Known` value, or the number of a variable.
      out: number of the variable that it makes.
      shape: of that variable.
    """

    rule: "Rule"
    bind: Callable[..., Array]
    name: str
    params: dict[str, Any]
    operands: tuple[Any, ...]
    out: int
    shape: tuple[int, ...]

    @property
    def variables(self) -> tuple[int, ...]:
        """Numbers of the operands that depend on the image."""
        return tuple(x for x in self.operands if not isinstance(x, Known))

    def apply(self, *variables: Array, known: Any = None) -> Array:
        """The operation on values of its variables; `known` replaces its one constant operand."""
        rest = iter(variables)
        filled = [
            (x.value if known is None else known) if isinstance(x, Known) else next(rest)
            for x in self.operands
        ]
        return self.bind(*filled)


class Free(NamedTuple):
    """A parameter of a relaxation that may be optimised: any value in a range gives valid bounds.

    Attributes:
      start: the value of CROWN.
      low: least value.
      high: largest value.
    """

    start: Array
    low: Array
    high: Array


# Rows of linear bounds `[s, *shape]` of a result -> rows of its variable operands, and an offset
# for each entry, `[s, *shape]`, whose sums are the offsets of the rows.
Pull = Callable[[Array], tuple[tuple[Array, ...], Array]]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How bounds pass an operation; `affine` and `elementwise` make the usual ones.

    Args:
      interval: `(node, *intervals) -> Interval`, from an interval for each variable operand.
      relax: `(node, intervals, free) -> Pull`, linear bounds that hold on the intervals; `None`
        for affine operations, whose transpose is taken. `free` is `None`, or values of `free`.
      free: `(node, intervals) -> tuple of Free`, the parameters that alpha-CROWN optimises.
      elementwise: whether every entry of the result depends on one entry of each operand.
      linear: of affine operations: whether they are 0 at 0, so that they have no offset.
    """

    interval: Callable[..., Interval]
    relax: Callable[[Node, Sequence[Interval], Any], Pull] | None = None
    free: Callable[[Node, Sequence[Interval]], tuple[Free, ...]] | None = None
    elementwise: bool = False
    linear: bool = False


# A rule, or a function `(params, operands)` that chooses one, or returns `None` if none applies.
Choice = Rule | Callable[[dict[str, Any], tuple[Any, ...]], Rule | None]
RULES: dict[str, Choice] = {}


def register(primitive: str | jex.Primitive, rule: Choice) -> None:
    """Adds the rule of a primitive to the table that all bounds use, or replaces one.

    The caller answers for its soundness: `interval` must contain every value, and the lines must
    bound the operation on all of the interval.

    Args:
      primitive: of JAX, or its name.
      rule: a `Rule`, as `affine` and `elementwise` make it, or a function `(params, operands) ->
        Rule | None` that chooses one by an equation's parameters and operands (`Known` for values
        that do not depend on the image).

    Returns:
      Nothing. Programs that are compiled already keep their bounds.

    Raises:
      ValueError: if `rule` is neither.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds
      >>> def lines(interval):  # of log1p, which is concave
      ...     (l, u), touch = interval, (interval.lower + interval.upper) / 2
      ...     slope = (jnp.log1p(u) - jnp.log1p(l)) / jnp.maximum(u - l, 1e-6)
      ...     tangent = 1 / (1 + touch)
      ...     return bounds.Lines(slope, jnp.log1p(l) - slope * l,
      ...                         tangent, jnp.log1p(touch) - tangent * touch)
      >>> bounds.register("log1p", bounds.elementwise(jnp.log1p, lines))
    """
    name = primitive if isinstance(primitive, str) else getattr(primitive, "name", None)
    if not isinstance(name, str):
        raise InputError(f"primitive must be one of JAX or a name, got {primitive!r}")
    if not (isinstance(rule, Rule) or callable(rule)):
        raise InputError(f"rule must be a bounds.Rule or a function that chooses one, got {rule!r}")
    RULES[name] = rule


def rule_of(name: str, params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    """The rule of an equation, or `None`."""
    found = RULES.get(name)
    return found if found is None or isinstance(found, Rule) else found(params, operands)


def rows_of(values: Array) -> Array:
    """A value with an axis for rows in front, to which lines are broadcast."""
    return jnp.expand_dims(values, 0)
