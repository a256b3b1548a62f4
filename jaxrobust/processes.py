"""Several processes that work as one: joining, sharing work, deciding together, leaving."""

import glob
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.devices import AXIS
from jaxrobust.reasons import first_line

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
      ValueError: if only some of the three are given, `process_id` is none of the numbers, or the
        others cannot be found.
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
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise ValueError(
            f"process_id must be in 0..{processes - 1} for {processes} processes, got {process_id}"
        )
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


def from_first(make: Callable[[], Any]) -> Any:
    """What process 0 makes, in every process; where it fails, all fail.

    Args:
      make: called by process 0 only; its result is pickled.

    Returns:
      The result.

    Raises:
      ValueError: in the other processes, if process 0 failed.
      LostProcessError: if another process has ended.

    Example:
      >>> from jaxrobust.processes import from_first
      >>> from_first(lambda: 3)
      3
    """
    if jax.process_count() == 1:
        return make()
    value, error = None, None
    if is_first():
        try:
            value = make()
        except Exception as problem:
            error = problem
    value, failed = _everyones((value, error is not None))[0]
    if error is not None:
        raise error
    if failed:
        raise ValueError("process 0 could not go on; its message says why")
    return value


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


def over_processes(
    jobs: Sequence[Any],
    work: Callable[[Any], Any],
    *,
    done: Callable[[Any], None] = lambda job: None,
) -> list[Any]:
    """`work` of every job: each process does its share, and all get every result.

    Args:
      jobs: the same in every process.
      work: of one job; its result is pickled.
      done: told each job once its result is there.

    Returns:
      The results, in the order of the jobs.

    Raises:
      LostProcessError: if another process has ended.

    Example:
      >>> from jaxrobust.processes import over_processes
      >>> over_processes([1, 2, 3], lambda job: job * job)
      [1, 4, 9]
    """
    count, mine, results = jax.process_count(), jax.process_index(), []
    for start in range(0, len(jobs), count):
        round_ = jobs[start : start + count]
        if count == 1:
            results.append(work(round_[0]))
        else:
            part = work(round_[mine]) if mine < len(round_) else None
            results += _everyones(part)[: len(round_)]
        for job in round_:
            done(job)
    return results


def _everyones(value: Any) -> list[Any]:
    """The values of all processes, by process."""
    # Pickled: any array arrives with its own type, and the processes of a run trust each other.
    content = np.frombuffer(pickle.dumps(value), np.uint8)
    try:
        sizes = multihost_utils.process_allgather(np.int32(len(content)))
        room = 1 << int(sizes.max() - 1).bit_length()  # few sizes, so few programs
        padded = np.zeros(room, np.uint8)
        padded[: len(content)] = content
        rows = multihost_utils.process_allgather(padded)
    except jax.errors.JaxRuntimeError as error:
        reason = first_line(error, longest=200)
        raise LostProcessError(
            f"another process has ended, so process {jax.process_index()} ends too ({reason}); "
            "start all processes again: what is finished is kept"
        ) from error
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


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
