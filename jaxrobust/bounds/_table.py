"""The rules of JAX's primitives. What is not here is refused."""

from typing import Any

from jaxrobust.bounds import _affine as affine
from jaxrobust.bounds import _curves as curves
from jaxrobust.bounds._affine import is_variable
from jaxrobust.bounds._pool import LARGEST, pooled
from jaxrobust.bounds._product import PRODUCT
from jaxrobust.bounds._relu import MAX_WITH_CONSTANT, MIN_WITH_CONSTANT
from jaxrobust.bounds._rule import Rule, register


def _product(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    return PRODUCT if all(map(is_variable, operands)) else affine.TIMES


def _max(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    return LARGEST if all(map(is_variable, operands)) else MAX_WITH_CONSTANT


def _power(params: dict[str, Any], operands: tuple[Any, ...]) -> Rule | None:
    return curves.SQUARE if params["y"] == 2 else None


for name in ("add", "add_any", "concatenate", "pad", "stack"):
    register(name, affine.SUM)
for name in (
    "broadcast_in_dim", "cumsum", "expand_dims", "reduce_sum", "reduce_window_sum", "reshape",
    "rev", "slice", "squeeze", "tile", "transpose",
):  # fmt: skip
    register(name, affine.LINEAR)
for name in ("gather", "dynamic_slice"):
    register(name, affine.first_only)
for name in ("dot_general", "conv_general_dilated"):
    register(name, affine.one_variable)
register("convert_element_type", affine.converted)
register("div", affine.divided)
register("mul", _product)
register("neg", affine.NEGATION)
register("select_n", affine.selected)
register("sub", affine.DIFFERENCE)

register("abs", curves.ABS)
register("erf", curves.ERF)
register("exp", curves.EXP)
register("integer_pow", _power)
register("log", curves.LOG)
register("logistic", curves.LOGISTIC)
register("sqrt", curves.SQRT)
register("square", curves.SQUARE)
register("tanh", curves.TANH)

register("max", _max)
register("min", MIN_WITH_CONSTANT)
register("reduce_max", LARGEST)
register("reduce_window_max", pooled)
