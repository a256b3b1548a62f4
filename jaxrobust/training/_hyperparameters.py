"""Values of the objective, the threat and the transform that change during training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array


def replaced(
    schedules: Sequence[tuple[str, optax.Schedule]], step: Array, **parts: Any
) -> dict[str, Any]:
    """The parts of a step with the scheduled values of this step.

    Args:
      schedules: pairs of a path, "objective.lam" or "threat.eps", and a function of the step.
      step: `[]` int32, 0 before the first step.
      **parts: objective, threat and transform by name, with leaves that may be traced.

    Returns:
      The parts by name.
    """
    for path, schedule in schedules:
        head, _, name = path.partition(".")
        value = jnp.asarray(schedule(step), jnp.result_type(float))
        parts[head] = replace(parts[head], **{name: value})
    return parts
