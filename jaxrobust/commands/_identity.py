"""What an evaluation is of: checkpoint, task and threat."""

import pathlib
from dataclasses import replace
from typing import Any

from jaxrobust import threats
from jaxrobust.evaluation import Evaluator, provenance
from jaxrobust.experiment import Experiment, evaluator_packages, normal, sources, to_dict
from jaxrobust.training import Checkpoints

TASK = ("data", "model", "threat", "seed")


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
    return task_in(to_dict(experiment))


def task_in(values: dict[str, Any]) -> dict[str, Any]:
    """The same of a stored experiment or task, which an older version may have written."""
    found = normal({name: values[name] for name in TASK})
    return {name: found[name] for name in TASK}


def provenance_of(experiment: Experiment, evaluator: Evaluator) -> dict[str, Any]:
    """Versions, devices and commit, and the versions of parts and evaluators from outside."""
    found = sources(sorted({*experiment.packages(), *evaluator_packages(evaluator)}))
    return provenance() | ({"sources": found} if found else {})


def threat_text(experiment: Experiment) -> str:
    """The threat in words: `linf eps 0.1`."""
    threat, given = experiment.build("threat"), experiment.threat.kwargs
    # As they were given: in float32, 8/255 has another sixth digit.
    if ":" in experiment.threat.target:  # what its arguments mean is not known
        return threats.described(threat)
    names = getattr(threat, "__dataclass_fields__", {})
    exact = {name: given[name] for name in names if name in given}
    return threats.described(replace(threat, **exact) if exact else threat)
