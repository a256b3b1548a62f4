"""Parts are made for checks under a trace: no array is built, and no device is started."""

from collections.abc import Callable
from typing import Any

import jax

from jaxrobust.reasons import first_line


def traced(make: Callable[[], Any], where: str) -> Any:
    """What a call makes, under a trace: it starts no device, and numbers are still checked.

    Raises:
      ValueError: in one line, if it fails.
    """
    made = []
    try:
        jax.eval_shape(lambda: made.append(make()))
    except ValueError as error:
        told = " ".join(str(error).split())
        raise ValueError(told if told.startswith(where) else f"{where}: {told}") from None
    except Exception as error:  # code from outside may fail in any way
        kind = type(error).__name__
        raise ValueError(f"{where}: {kind}: {first_line(error)}") from error
    return made[0]


def check_tree(part: Any, where: str) -> None:
    """A part that the step takes as an argument must be a pytree of numbers."""
    for leaf in jax.tree.leaves(part):
        if not isinstance(leaf, int | float | jax.Array) and not hasattr(leaf, "dtype"):
            raise ValueError(
                f"{where}: {type(leaf).__name__} is no pytree of numbers; decorate its class with "
                "jax.tree_util.register_dataclass, and mark what is no number as static"
            )
