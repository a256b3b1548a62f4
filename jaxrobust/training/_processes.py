"""Several processes that train as one: joining, deciding together, leaving."""

import glob
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.training._devices import AXIS
from jaxrobust.training._reporting import MetricsFile

HEARTBEAT_SECONDS = 20  # without a sign of life of a process the others give up


class LostProcessError(Exception):
    """Another process of the run has ended; this one cannot go on."""


def join_processes(
    *,
    distributed: bool = False,
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
) -> int:
    """Makes this process one of several; to be called before anything else asks JAX for devices.

    TPU pods, Slurm and Kubernetes say themselves who belongs together: there it suffices that
    `distributed` is set, or that their environment is recognised. Elsewhere all of `coordinator`,
    `processes` and `process_id` are needed.

    Args:
      distributed: there are several processes, also where that is not recognised.
      coordinator: `host:port` of process 0, which all can reach.
      processes: number of processes.
      process_id: number of this process, from 0.

    Returns:
      The number of processes: 1 if this one is alone.

    Raises:
      ValueError: if only some of the three are given, or the others cannot be found.
    """
    explicit = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [name for name, value in explicit.items() if value is None]
    if 0 < len(missing) < 3:
        raise ValueError(
            "coordinator, processes and process_id belong together; "
            f"{' and '.join(missing)} must be given too"
        )
    if len(missing) == 3 and not distributed and not recognised_cluster():
        return 1
    # The loop answers SIGTERM itself, in all processes at the same step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator,
            num_processes=processes,
            process_id=process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the processes do not find each other: {str(error).splitlines()[0]}; "
            "give coordinator, processes and process_id"
        ) from error
    return jax.process_count()


def recognised_cluster() -> str | None:
    """The environment that starts several processes, if it is one that JAX can ask.

    Returns:
      "Slurm", "Kubernetes", "TPU", or `None`.
    """
    env = os.environ
    if int(env.get("SLURM_NTASKS", "1")) > 1 and {"SLURM_PROCID", "SLURM_STEP_NODELIST"} <= set(env):  # fmt: skip  # noqa: E501
        return "Slurm"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return "Kubernetes"
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    if chips and "TPU_SKIP_MDS_QUERY" not in env and importlib.util.find_spec("libtpu"):
        return "TPU"
    return None


def is_first() -> bool:
    """Whether this process writes the logs of a run.

    Returns:
      True for process 0, and for the only one.
    """
    return jax.process_index() == 0


def first_alone(act: Callable[[], None]) -> None:
    """Process 0 acts, the others wait for it; where it fails, all fail.

    Raises:
      ValueError: in the other processes, if process 0 failed.
    """
    if jax.process_count() == 1:
        return act()
    error: Exception | None = None
    if is_first():
        try:
            act()
        except Exception as problem:
            error = problem
    failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
    if error is not None:
        raise error
    if failed:
        raise ValueError("process 0 could not start the run; its message says why")
    return None


def check_shared(workdir: pathlib.Path) -> None:
    """That every process sees what process 0 has written.

    Raises:
      ValueError: if the folder is another one on another machine.
    """
    if not (workdir / "config.json").is_file():
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
    workdir: pathlib.Path, *, resume_step: int, tensorboard: bool
) -> MetricsFile | Silence:
    """The run's metrics file, in the first process."""
    if not is_first():
        return Silence()
    path = workdir / "metrics.jsonl"
    return MetricsFile(path, resume_step=resume_step, tensorboard=tensorboard)


def lost_message(name: str, saved: list[int], error: Exception) -> str:
    """In one line: what happened, and how to go on."""
    where = f"its last checkpoint is of step {saved[-1]}" if saved else "it has no checkpoint yet"
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
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


def leave(code: int) -> NoReturn:
    """Ends this process; one of several ends at once, so that the others notice.

    Python's orderly exit would wait for the others, which wait for this one in a collective.

    Args:
      code: exit code.

    Returns:
      Never.
    """
    if not jax.distributed.is_initialized():
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
