"""Constants of a network (the bases of a mix): not in checkpoints, so their digest is kept."""

import hashlib

import jax
import numpy as np
from etils import epath

from jaxrobust.networks import Network
from jaxrobust.storage import write_whole

DIGEST = "constants.sha256"


def check_constants(workdir: epath.Path, network: Network, *, first: bool = False) -> None:
    """Checks that a network has the constants that a run began with.

    Args:
      workdir: the run's folder.
      network: of the run.
      first: write the digest where there is none.

    Raises:
      ValueError: if they have changed.
    """
    leaves = jax.tree.leaves(network)
    if not leaves:
        return
    found = hashlib.sha256()
    for leaf in leaves:
        values = np.ascontiguousarray(jax.device_get(leaf))
        found.update(f"{values.dtype}{values.shape}".encode() + values.tobytes())
    path = workdir / DIGEST
    if not path.exists():
        if first:
            write_whole(path, found.hexdigest() + "\n")
    elif path.read_text().strip() != found.hexdigest():
        raise ValueError(
            f"the bases of {workdir} are not those that it was trained with: their runs or files "
            "have changed; restore them, or train again in another folder"
        )
