"""What an evaluation is of: its names and the keys that kept results are found by."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrobust.evaluation import provenance
from jaxrobust.experiment import Evaluation, Experiment, normal, sources, to_dict
from jaxrobust.training import Checkpoints

TASK = ("data", "model", "threat", "seed")
LONGEST = 120  # characters of a name in a folder


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


def provenance_of(experiment: Experiment) -> dict[str, Any]:
    """Versions, devices and commit, and the versions of parts from outside."""
    found = sources(experiment)
    return provenance() | ({"sources": found} if found else {})


def evaluation_key(
    experiment: Experiment, evaluation: Evaluation, checkpoint: dict[str, Any]
) -> dict[str, Any]:
    """What two rows of `evaluate_run` must have in common to be the same evaluation."""
    return {
        "checkpoint": checkpoint,
        "evaluation": to_dict(evaluation),
        "task": task_of(experiment),
    }


def autoattack_name(
    checkpoint: dict[str, Any],
    *,
    norm: str,
    eps: Sequence[float],
    version: str,
    attacks: Sequence[str] | None,
    seed: int,
    individual: bool,
    n: int | None,
) -> str:
    """The folder of one AutoAttack evaluation of a run, or of a sweep over several radii.

    Two evaluations that differ in anything have different names.

    Args:
      checkpoint: `{"kind": ..., "step": ...}`.
      norm: of the ball.
      eps: radii in image units; two that are the same in float32 are the same.
      version: of AutoAttack.
      attacks: of version "custom".
      seed: of all noise.
      individual: every attack on all points.
      n: number of images, or `None` for all.

    Returns:
      Such as `best_step310_linf_eps0.03137255_custom_apgd-ce_fab-t_seed0_first40`.
    """
    parts = [checkpoint["kind"], f"step{checkpoint['step']}", norm]
    parts += ["eps" + short("-".join(str(np.float32(radius)) for radius in eps)), version]
    parts += [*(attacks or ()), f"seed{seed}"]
    parts += ["individual"] * individual + [f"first{n}"] * (n is not None)
    return "_".join(parts)


def short(text: str) -> str:
    """The text, or its hash where it is too long for the name of a file."""
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]


def pgd_text(evaluation: dict[str, Any]) -> str:
    """PGD with all that its number depends on: `20`, or `20, 2 restarts, step size 0.01`.

    Args:
      evaluation: with `steps`, and `restarts` and `step_size` where they are not the defaults.

    Returns:
      The text, for brackets or after a hyphen.
    """
    restarts, size = evaluation.get("restarts", 1), evaluation.get("step_size")
    text = str(evaluation["steps"])
    text += f", {restarts} restarts" if restarts > 1 else ""
    return text + (f", step size {size:.6g}" if size is not None else "")
