"""The folder of a run: whose it is."""

import json
import os
import pathlib
import re

from jaxrobust.experiment import Experiment, from_dict, to_dict


def claim(workdir: pathlib.Path, experiment: Experiment, *, resume: bool) -> None:
    """Makes the folder this experiment's, or says why it cannot be.

    Raises:
      ValueError: if it holds a run and `resume` is not set, or a run of another configuration, or
        is no folder but an address.
    """
    refuse_address(workdir)
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
    temporary = workdir / "config.json.tmp"
    temporary.write_text(json.dumps(to_dict(experiment), indent=2) + "\n")
    os.replace(temporary, config)


def read_config(workdir: str | pathlib.Path) -> Experiment:
    """The experiment whose run a folder holds.

    Args:
      workdir: the run's folder.

    Returns:
      The `Experiment` of its `config.json`.

    Raises:
      ValueError: if the folder holds no run, its configuration cannot be read, or it is no folder
        but an address.
    """
    refuse_address(workdir)
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise ValueError(f"{workdir} holds no run: there is no config.json in it")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    return from_dict(values)


def refuse_address(workdir: str | pathlib.Path) -> None:
    """Buckets are read and written through a mount; `gs://` would become a folder named "gs:".

    Raises:
      ValueError: if the folder is an address such as `gs://bucket/run`.
    """
    found = re.match(r"([a-z][a-z0-9]+):/+", str(workdir))
    if found:
        address = f"{found[1]}://{str(workdir)[found.end() :]}"  # pathlib has dropped a slash
        raise ValueError(
            f"workdir must be a folder, but {address} is an address: mount the bucket and give "
            "the folder in it (docs/pods.md)"
        )
