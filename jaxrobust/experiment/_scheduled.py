"""Scheduled values are in the range of what they change, over the whole run."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.experiment._experiment import Experiment
from jaxrobust.experiment._parts import PARTS
from jaxrobust.inputs import InputError, as_number
from jaxrobust.spec import Spec, built, signature_of

POINTS = 200  # steps of the run at which a schedule is looked at
RANGES = {"awp": np.inf, "optimizer.momentum": 1.0}


def check_scheduled(experiment: Experiment, steps_per_epoch: int) -> None:
    """Refuses a schedule that leaves the range of its value, which the step cannot see.

    Args:
      experiment: whose schedules.
      steps_per_epoch: of the run.

    Raises:
      InputError: for a value that the part itself would refuse, such as an l_inf radius of 8.
    """
    last = max(experiment.epochs * steps_per_epoch - 1, 0)
    steps = jnp.asarray(np.unique(np.linspace(0, last, POINTS).astype(np.int32)))
    for path in experiment.schedules:
        schedule = experiment.schedule(path, steps_per_epoch)

        def value(step: jax.Array, schedule: object = schedule) -> jax.Array:
            return jnp.asarray(schedule(step), jnp.result_type(float))  # type: ignore[operator]

        values = np.asarray(jax.jit(jax.vmap(value))(steps))
        for extreme in (values.min(), values.max()):
            _check(experiment, path, float(extreme))


def _check(experiment: Experiment, path: str, value: float) -> None:
    """Refuses one value."""
    head, _, name = path.partition(".")
    try:
        if path in RANGES:
            as_number(value, name=path, low=0, high=RANGES[path])
        elif name in signature_of(experiment.part(head)).parameters:
            part: Spec = getattr(experiment, head)
            changed = Spec(part.target, part.args, {**part.kwargs, name: value})
            built(changed, PARTS[head], head)
    except ValueError as error:
        raise InputError(f"schedules[{path!r}] reaches {value:g}: {error}") from None
