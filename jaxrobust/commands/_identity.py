"""What an evaluation is of: checkpoint, task and threat."""

import pathlib
from dataclasses import fields, replace
from typing import Any

from jaxrobust import threats
from jaxrobust.experiment import Experiment, to_dict
from jaxrobust.training import Checkpoints


def checkpoint_of(workdir: pathlib.Path, kind: str) -> dict[str, Any]:
    """The checkpoint that an evaluation would take now, as rows name it.

    Args:
      workdir: the run's folder.
      kind: "best" or "last".

    Returns:
      `{"kind": kind, "step": step}`; the step is `None` where there is none.
    """
    checkpoints = Checkpoints(workdir / "checkpoints", warn=lambda line: None)
    try:
        steps = checkpoints.steps()
        step = checkpoints.best_step() if kind == "best" else (steps[-1] if steps else None)
    finally:
        checkpoints.close()
    return {"kind": kind, "step": step}


def task_of(experiment: Experiment) -> dict[str, Any]:
    """The parts of an experiment that the numbers of a checkpoint depend on."""
    values = to_dict(experiment)
    return {name: values[name] for name in ("data", "model", "threat", "seed")}


def threat_text(experiment: Experiment) -> str:
    """The threat in words: `linf eps 0.1`."""
    threat, given = experiment.build("threat"), experiment.threat.kwargs
    # As they were given: in float32, 8/255 has another sixth digit.
    exact = {field.name: given[field.name] for field in fields(threat) if field.name in given}
    return threats.described(replace(threat, **exact))
