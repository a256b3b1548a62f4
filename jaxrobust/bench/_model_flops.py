"""Multiplications and additions that a function's mathematics has, however a backend does them."""

import math
from collections.abc import Iterator
from typing import Any

import jax.extend.core as jex


def model_flops(jaxpr: Any) -> int:
    """FLOPs of the convolutions and matrix products of a traced function.

    Counted before compilation: an algorithm with fewer multiplications does not lower it. Loops
    count as often as they run, of branches the most expensive one, a `shard_map` on all devices.

    Args:
      jaxpr: of `jax.make_jaxpr`, traced without `fast_on_cpu`.

    Returns:
      Twice the number of multiplications; zeros of padding count, those of dilated images do not.

    Raises:
      ValueError: if there are products in a loop whose number of rounds is not known.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust.bench import model_flops
      >>> model_flops(jax.make_jaxpr(lambda x: x @ x)(jnp.ones((4, 4))))
      128
    """
    return sum(_flops_of(eqn) for eqn in jaxpr.eqns)


def _flops_of(eqn: Any) -> int:
    name, params = eqn.primitive.name, eqn.params
    if name == "dot_general":
        left, ((contracted, _), _) = eqn.invars[0].aval.shape, params["dimension_numbers"]
        return 2 * eqn.outvars[0].aval.size * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        _, inputs, *space = params["dimension_numbers"].rhs_spec
        window = math.prod(eqn.invars[1].aval.shape[i] for i in (inputs, *space))
        spread = math.prod(params["lhs_dilation"])
        return 2 * eqn.outvars[0].aval.size * window // spread
    if name == "cond":
        return max(model_flops(branch) for branch in params["branches"])
    inside = sum(model_flops(inner) for inner in _inner(params))
    if name == "while" and inside:
        raise ValueError("products inside a `while` loop cannot be counted: its rounds are unknown")
    if name == "scan":
        return params["length"] * inside
    return inside * (params["mesh"].size if name == "shard_map" else 1)


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(one, (jex.Jaxpr, jex.ClosedJaxpr)):
                yield one
