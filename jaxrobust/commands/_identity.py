"""The origin of an evaluation: checkpoint, data, task and threat."""

import json
import pathlib
from dataclasses import replace
from typing import Any

from jaxrobust import threats
from jaxrobust.digests import digest_of, digest_of_files
from jaxrobust.evaluation import Evaluator, provenance
from jaxrobust.experiment import Experiment, evaluator_packages, normal, sources, to_dict
from jaxrobust.spec import Spec
from jaxrobust.training import WEIGHTS, Checkpoints

TASK = ("data", "model", "threat", "seed")


def checkpoint_of(workdir: pathlib.Path, kind: str) -> dict[str, Any]:
    """The checkpoint that an evaluation would use now, as rows name it.

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


def checkpoint_words(kind: str, *, held_out: bool) -> str:
    """A checkpoint in words: where nothing was held out, the best is only the last."""
    return "last, nothing was held out" if kind == "best" and not held_out else kind


def digest_of_checkpoint(workdir: pathlib.Path, step: int) -> str:
    """A digest of a checkpoint's files, because a run that is trained again has the same steps."""
    if (workdir / WEIGHTS).exists():
        return digest_of_files(workdir / WEIGHTS)
    return Checkpoints(workdir / "checkpoints", warn=lambda line: None).digest(step)


def digests_of_data(dataset: Any) -> dict[str, str]:
    """Digests of the test images and labels, because a data file may change under its name."""
    images, labels = dataset.floats("test")
    return {"images": digest_of(images), "labels": digest_of(labels)}


class DataDigests:
    """Digests of test data by the configuration that names them; each is read once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, str]] = {}

    def of(self, experiment: Experiment) -> dict[str, str]:
        """The digests of an experiment's test data."""
        name = json.dumps(to_dict(experiment)["data"], sort_keys=True)
        if name not in self._known:
            self._known[name] = digests_of_data(experiment.build("data"))
        return self._known[name]


def task_of(experiment: Experiment) -> dict[str, Any]:
    """The parts of an experiment that the numbers of a checkpoint depend on."""
    return task_in(to_dict(experiment))


def task_in(values: dict[str, Any]) -> dict[str, Any]:
    """The same for a stored experiment or task, which an older version may have written."""
    found = normal({name: values[name] for name in TASK})
    return {name: found[name] for name in TASK}


def card_fields(experiment: Experiment) -> dict[str, str]:
    """What a run's model card says besides the results."""
    data, model = experiment.data, experiment.model
    settings = ", ".join(f"{name}={value}" for name, value in model.kwargs.items())
    fields = {
        "name": experiment.name,
        "dataset": _data_name(data),
        "architecture": model.target + (f"({settings})" if settings else ""),
    }
    generated = {"footnote": "also trained on generated images"}
    return fields | (generated if experiment.generated is not None else {})


def _data_name(data: Spec) -> str:
    """The name of a data set: the given one, or that of the file or folder it is read from."""
    name = data.kwargs.get("name")
    if name is None and data.target in ("npz", "image_folder"):
        name = pathlib.PurePath(data.kwargs["path"]).stem
    return str(name or data.target)


def provenance_of(experiment: Experiment, evaluator: Evaluator) -> dict[str, Any]:
    """Versions, devices and commit, and the versions of parts and evaluators from outside."""
    found = sources(sorted({*experiment.packages(), *evaluator_packages(evaluator)}))
    return provenance() | ({"sources": found} if found else {})


def threat_text(experiment: Experiment) -> str:
    """The threat as text: `linf eps 0.1`."""
    threat, given = experiment.build("threat"), experiment.threat.kwargs
    # As they were given: in float32, 8/255 has another sixth digit.
    if ":" in experiment.threat.target:  # what its arguments mean is not known
        return threats.described(threat)
    names = getattr(threat, "__dataclass_fields__", {})
    exact = {name: given[name] for name in names if name in given}
    return threats.described(replace(threat, **exact) if exact else threat)
