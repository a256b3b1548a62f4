"""The arguments of a traced loop, which releases of JAX describe differently."""

from collections.abc import Mapping
from typing import Any


def scan_arguments(params: Mapping[str, Any]) -> tuple[int, int]:
    """Counts the first arguments of a `scan`.

    Args:
      params: the parameters of its equation.

    Returns:
      The number of constants and that of carried values, which follow them. The sequences come
      last.

    Example:
      >>> import jax
      >>> from jaxrobust.loops import scan_arguments
      >>> traced = jax.make_jaxpr(lambda x: jax.lax.fori_loop(0, 3, lambda i, y: x * y, x))(1.0)
      >>> scan_arguments(traced.eqns[-1].params)
      (1, 2)
    """
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()  # newer releases
    return len(consts), len(carry)
