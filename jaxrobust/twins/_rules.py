"""Derivatives of the twin: one rule for each operation that stops or quantises gradients.

A rule gets the equation, what is known of its operands, its values, and a function to report a stop
with. It returns what is known of the results, or `None` where the operation is as it always is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.twins._known import (
    Chosen,
    Coded,
    Compared,
    Known,
    bump,
    carry,
    floated,
    is_float,
    step,
)
from jaxrobust.twins._stops import is_numerical

LEAK = 0.1  # of the gradient that passes a clamp beyond its ends
Told = Callable[..., None]
Rule = Callable[[Any, list[Known], list[Any], Told], "list[Known] | None"]


def bound(eqn: Any, values: list[Any]) -> list[Any]:
    """The results of an equation for other operands."""
    params = eqn.primitive.get_bind_params(eqn.params)
    with eqn.ctx.manager:
        found = eqn.primitive.bind(*values, **params)
    return list(found) if eqn.primitive.multiple_results else [found]


def _known(value: Any, surrogate: Array | None, about: Any = None) -> Known:
    """A result with the derivative of a surrogate, whatever its type."""
    if surrogate is None:
        return Known(value, True, about=about)
    if is_float(value):
        return Known(carry(value, surrogate), True, about=about)
    return Known(value, True, carry(value.astype(jnp.float32), surrogate), about=about)


def _rounds(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known]:
    told(eqn, "rounds its input")
    return [_known(values[0], args[0].value)]


def _signs(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    if is_numerical(eqn):
        return None
    told(eqn, "keeps the sign of its input alone")
    return [_known(values[0], 2 * step(floated(args[0])))]


def _stops(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    if is_numerical(eqn):
        return None
    told(eqn, "passes no gradient")
    return [args[0]._replace(value=values[0] if not is_float(values[0]) else args[0].value)]


def leaking(value: Array, entered: Array) -> Array:
    """What a clamp returned, with a part of the gradient that it cuts off."""
    return value + LEAK * (entered - jax.lax.stop_gradient(entered))


def _clamps(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    if is_numerical(eqn) or not args[1].depends:
        return None
    told(eqn, "cuts its input off")
    return [_known(values[0], leaking(bound(eqn, list(map(floated, args)))[0], floated(args[1])))]


def _compares(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known]:
    left, right = map(floated, args)
    less = eqn.primitive.name in ("lt", "le")
    about = Compared(tuple(known.scalar for known in args if not known.depends) or (None,))
    return [_known(values[0], step(right - left if less else left - right), about)]


def _equates(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    shares = [known.about.shares for known in args if isinstance(known.about, Chosen)]
    if eqn.primitive.name == "eq" and shares and shares[0].shape == values[0].shape:
        return [_known(values[0], shares[0], Coded(shares[0]))]
    if any(is_float(known.value) and known.scalar is not None for known in args):
        return None  # x == 0, where a formula has a hole
    alike = bump(floated(args[0]) - floated(args[1]))
    for axis in _enumerating(args, values[0]):
        alike = alike / jnp.sum(alike, axis, keepdims=True)
    return [_known(values[0], alike if eqn.primitive.name == "eq" else 1 - alike)]


def _enumerating(args: list[Known], out: Array) -> list[int]:
    """The axis along which one number is compared with several: the code of a level."""
    numbers, codes = sorted(args, key=lambda known: not known.depends)
    wide = [a for a in range(out.ndim) if codes.value.shape[a] > 1 and numbers.value.shape[a] == 1]
    return wide if not codes.depends and len(wide) == 1 else []


def _chooses(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    scores, (axis,) = floated(args[0]), eqn.params["axes"]
    told(eqn, "returns the place of the largest value alone")
    sign = 1 if eqn.primitive.name == "argmax" else -1
    shares = jnp.moveaxis(jax.nn.softmax(sign * scores, axis), axis, -1)
    mean = shares @ jnp.arange(shares.shape[-1], dtype=shares.dtype)
    return [_known(values[0], mean, Chosen(shares))]


def _ranks(eqn: Any, args: list[Known], values: list[Any], told: Told) -> None:
    if not is_numerical(eqn):
        told(eqn, "selects the largest values")


def _selects(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    which, *cases = args
    if not is_float(values[0]):
        soft = bound(eqn, [which.value, *map(floated, cases)])[0]
        free = not any(case.depends for case in cases)
        return [_known(values[0], soft + _by_choice(which, cases) if free else soft)]
    depending = [case for case in cases if case.depends]
    if is_numerical(eqn) or not isinstance(which.about, Compared):
        about = depending[0].about if len(depending) == 1 else None
        return [Known(values[0], True, about=about)]
    if not depending:
        told(eqn, "chooses between constants by a comparison")
        return [_known(values[0], values[0] + _by_choice(which, cases))]
    if len(depending) == len(cases) or _is_rectifier(which.about, cases):
        return None
    told(eqn, "replaces its own input by a constant")
    return [_known(values[0], depending[0].value)]


def _by_choice(which: Known, cases: list[Known]) -> Array | float:
    """A zero, with the derivative that the choice between two cases has by what decides it."""
    if which.soft is None or len(cases) != 2:
        return 0.0
    first, second = (jax.lax.stop_gradient(floated(case)) for case in cases)
    return (second - first) * (which.soft - jax.lax.stop_gradient(which.soft))


def _is_rectifier(about: Compared, cases: list[Known]) -> bool:
    """Whether `where(x > c, x, c)` is meant: it has no jump, and the gradient of a ReLU."""
    (threshold, *others) = about.thresholds
    scalars = {case.scalar for case in cases if not case.depends}
    return not others and threshold is not None and scalars == {threshold}


def _logarithm(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    """Of a one-hot code: minus infinity has no derivative, the logarithm of softmax has."""
    about = args[0].about
    if not isinstance(about, Coded) or about.shares.shape != values[0].shape:
        return None
    return [_known(values[0], jnp.log(jnp.maximum(about.shares, jnp.finfo(values[0].dtype).tiny)))]


def _converts(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    before, after = is_float(args[0].value), is_float(values[0])
    if before and after:
        return None
    if before:
        told(eqn, "casts its input to integers")
        return [_known(values[0], floated(args[0]))]
    if args[0].soft is None:
        return None
    if after and args[0].value.dtype == jnp.bool_ and not is_numerical(eqn):
        told(eqn, "turns a comparison into numbers")
    return [_known(values[0], args[0].soft, args[0].about)]


def _looks_up(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    """A table at indices of the input: the slope between the neighbours of each entry."""
    table, index = args
    numbers = eqn.params["dimension_numbers"]
    if index.soft is None or index.value.shape[-1] != 1 or not is_float(values[0]):
        return None
    along = numbers.start_index_map[0]
    last = table.value.shape[along] - eqn.params["slice_sizes"][along]
    rows = [jnp.clip(index.value + one, 0, last).astype(index.value.dtype) for one in (-1, 1)]
    below, above = (bound(eqn, [table.value, row])[0] for row in rows)
    moved = index.soft - jax.lax.stop_gradient(index.soft)
    moved /= jnp.maximum(rows[1] - rows[0], 1).astype(moved.dtype)
    kept = [d for d in range(values[0].ndim) if d not in numbers.offset_dims]
    wide = jax.lax.broadcast_in_dim(moved[..., 0], values[0].shape, kept)
    slope = jax.lax.stop_gradient(above - below)
    told(eqn, "looks its input up in a table")
    return [_known(values[0], values[0] + slope * wide.astype(values[0].dtype))]


def _as_floats(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
    """Operations on integers and booleans that are the same on floats."""
    if is_float(values[0]) or not any(known.soft is not None for known in args):
        return None
    about = next((known.about for known in args if known.about is not None), None)
    return [_known(values[0], bound(eqn, list(map(floated, args)))[0], about)]


def _as_formula(formula: Callable[..., Array]) -> Rule:
    """Operations on integers and booleans that have another form on floats."""

    def rule(eqn: Any, args: list[Known], values: list[Any], told: Told) -> list[Known] | None:
        if is_float(values[0]) or not any(known.soft is not None for known in args):
            return None
        thresholds = [k.about.thresholds for k in args if isinstance(k.about, Compared)]
        about = Compared(sum(thresholds, ())) if thresholds else None
        truth = values[0].dtype == jnp.bool_
        return [_known(values[0], formula(truth, *map(floated, args)), about)]

    return rule


SAME = "add sub mul neg abs max min reshape broadcast_in_dim squeeze expand_dims transpose "
SAME += "concatenate slice rev pad reduce_sum cumsum copy reduce_max reduce_min"
BITS: dict[str, Callable[..., Array]] = {
    "and": lambda truth, a, b: a * b if truth else a + b,
    "or": lambda truth, a, b: a + b - a * b if truth else a + b,
    "xor": lambda truth, a, b: a + b - 2 * a * b if truth else a + b,
    "not": lambda truth, a: 1 - a if truth else -a,
    "div": lambda truth, a, b: a / b,
    "rem": lambda truth, a, b: a + 0 * b,
    "shift_right_logical": lambda truth, a, b: a / 2**b,
    "shift_right_arithmetic": lambda truth, a, b: a / 2**b,
    "shift_left": lambda truth, a, b: a * 2**b,
}
RULES: dict[str, Rule] = (
    dict.fromkeys(SAME.split(), _as_floats)
    | {name: _as_formula(formula) for name, formula in BITS.items()}
    | dict.fromkeys(("round", "floor", "ceil"), _rounds)
    | dict.fromkeys(("gt", "ge", "lt", "le"), _compares)
    | dict.fromkeys(("eq", "ne"), _equates)
    | dict.fromkeys(("argmax", "argmin"), _chooses)
    | dict.fromkeys(("top_k",), _ranks)
    | {"sign": _signs, "stop_gradient": _stops, "clamp": _clamps, "select_n": _selects}
    | {"convert_element_type": _converts, "gather": _looks_up, "log": _logarithm}
)
