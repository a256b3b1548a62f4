"""Values of the objective and the threat that change during training."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import optax
from jax import Array


def replaced(
    schedules: Sequence[tuple[str, optax.Schedule]], step: Array, objective: Any, threat: Any
) -> tuple[Any, Any]:
    """Objective and threat with the scheduled values of this step.

    Args:
      schedules: pairs of a path, "objective.lam" or "threat.eps", and a function of the step.
      step: `[]` int32, 0 before the first step.
      objective: with leaves that may be traced.
      threat: with leaves that may be traced.

    Returns:
      `(objective, threat)`.
    """
    owners: dict[str, Any] = {"objective": objective, "threat": threat}
    for path, schedule in schedules:
        head, _, name = path.partition(".")
        value = jnp.asarray(schedule(step), jnp.result_type(float))
        owners[head] = replace(owners[head], **{name: value})
    return owners["objective"], owners["threat"]
