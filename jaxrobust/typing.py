"""The types that the whole library speaks of."""

from collections.abc import Callable
from typing import Literal, get_args

from jax import Array

LogitsFn = Callable[[Array], Array]  # images [b, h, w, c] -> logits [b, k]
Loss = Callable[[Array, Array], Array]  # (logits [b, k], labels) -> [b], maximised by attacks
Norm = Literal["linf", "l2", "l1"]
NORMS = get_args(Norm)
AnyNorm = Literal["linf", "l2", "l1", "l0"]  # l0 counts changed values; few attacks take it
ANY_NORMS = get_args(AnyNorm)
