"""A run's network without its checkpoints: weights and configuration, to be published."""

import pathlib
from collections.abc import Callable, Sequence

import jax
from etils import epath

from jaxrobust.storage import Folder, check_folder, local_folder
from jaxrobust.training._folder import WEIGHTS, claim
from jaxrobust.training._runs import Run, load_run
from jaxrobust.training._weights import write_weights


def export_network(
    workdir: Folder,
    folder: pathlib.Path,
    *,
    checkpoint: str = "best",
    trust: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Run:
    """Writes the network of a run, with the averages if there are any, into a new folder.

    `load_run`, `init_from` and the bases of a mix read this folder as they read a run's. It cannot
    be trained on in place, because the optimizer's state is not there.

    Args:
      workdir: the run's folder.
      folder: a new or an empty one. It gets `config.json` and `model.safetensors`, whose names are
        those of PyTorch if the network is one of `models` with such names.
      checkpoint: "best" or "last", as for `load_run`.
      trust: as for `load_run`.
      say: as for `load_run`.

    Returns:
      The run that was exported.

    Raises:
      ValueError: if `folder` is not empty, if `workdir` holds no run, or for a mixed classifier,
        whose bases are runs of their own.
      CheckpointError: if no checkpoint can be read.
    """
    target = local_folder(folder)
    check_folder(target, name="folder")
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"folder must be new or empty, and {target} is neither")
    run = load_run(workdir, checkpoint=checkpoint, trust=trust, say=say)
    if jax.tree.leaves(run.logits_fn.network):
        raise ValueError(
            f"{workdir} is a mixed classifier, whose bases are runs of their own: export those"
        )
    target.mkdir(parents=True, exist_ok=True)
    claim(epath.Path(target), run.experiment)
    about = {"checkpoint": checkpoint, "step": str(run.step)}
    write_weights(epath.Path(target / WEIGHTS), run.logits_fn, about)
    return run
