"""What the processes of a training run share: its folder, its metrics, and the wish to stop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.devices import AXIS
from jaxrobust.processes import is_first
from jaxrobust.reasons import first_line
from jaxrobust.training._reporting import MetricsFile


def check_shared(workdir: epath.Path) -> None:
    """That every process sees what process 0 has written.

    Raises:
      ValueError: if the folder is another one on another machine.
    """
    if not (workdir / "config.json").exists():
        raise ValueError(
            f"workdir must be a folder that all processes share, but process {jax.process_index()} "
            f"sees no config.json in {workdir}"
        )


class Silence:
    """What the other processes have in place of the metrics file."""

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Closes nothing."""


def open_metrics(
    workdir: epath.Path, *, resume_step: int, tensorboard: bool
) -> MetricsFile | Silence:
    """The run's metrics file, in the first process."""
    if not is_first():
        return Silence()
    path = workdir / "metrics.jsonl"
    return MetricsFile(path, resume_step=resume_step, tensorboard=tensorboard)


def lost_message(name: str, saved: list[int], error: Exception) -> str:
    """In one line: what happened, and how to go on."""
    where = f"its last checkpoint is of step {saved[-1]}" if saved else "it has no checkpoint yet"
    reason = first_line(error, longest=200)
    return (
        f"another process of {name} has ended, so process {jax.process_index()} ends too "
        f"({reason}); {where}: start all processes again with --resume"
    )


class StopVote:
    """A signal to one process, known to all of them after the same step.

    A vote is a number per device, the largest counts. It is read one vote later, so that no
    process waits for the devices.

    Args:
      mesh: of all devices.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._alone = jax.process_count() == 1
        self._shape = (mesh.size,)
        self._local = len(mesh.local_devices)
        self._split = NamedSharding(mesh, P(AXIS))
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, P()))
        self._pending: jax.Array | None = None

    def cast(self, received: int | None) -> int | None:
        """This process's signal; returns that of any process, as all had cast it one vote ago."""
        if self._alone:
            return received
        local = np.full(self._local, received or 0, np.int32)
        votes = jax.make_array_from_process_local_data(self._split, local, self._shape)
        before, self._pending = self._pending, self._largest(votes)
        return None if before is None else int(before) or None
