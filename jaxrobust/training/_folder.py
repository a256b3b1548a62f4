"""The folder of a run: whose it is."""

import json

from etils import epath

from jaxrobust.experiment import Experiment, from_dict, to_dict
from jaxrobust.training._bucket import Folder, run_folder, write_whole


def claim(workdir: epath.Path, experiment: Experiment, *, resume: bool) -> None:
    """Makes the folder this experiment's, or says why it cannot be.

    Raises:
      ValueError: if it holds a run and `resume` is not set, or a run of another configuration.
    """
    config = workdir / "config.json"
    if config.exists():
        there = read_config(workdir)
        if not resume:
            raise ValueError(
                f"{workdir} already holds the run {there.name!r}; "
                "continue it with --resume or choose another --workdir"
            )
        old, new = to_dict(there), to_dict(experiment)  # (8,) comes back as [8]
        differing = sorted(k for k in new if old[k] != new[k])
        if differing:
            raise ValueError(
                f"{workdir} holds a run whose {', '.join(differing)} differ; "
                "choose another --workdir"
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    write_whole(config, json.dumps(to_dict(experiment), indent=2) + "\n")


def read_config(workdir: Folder) -> Experiment:
    """The experiment whose run a folder holds.

    Args:
      workdir: the run's folder, or `gs://bucket/folder`.

    Returns:
      The `Experiment` of its `config.json`.

    Raises:
      ValueError: if the folder holds no run, or its configuration cannot be read.
    """
    path = run_folder(workdir) / "config.json"
    if not path.exists():
        raise ValueError(f"{workdir} holds no run: there is no config.json in it")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return from_dict(values)
