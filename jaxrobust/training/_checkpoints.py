"""Checkpoints of a run: asynchronous, the last few and the best, restored past damage."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from jaxrobust.training._bucket import in_bucket

METRIC = "validation_robust_accuracy"


class CheckpointError(Exception):
    """No checkpoint could be restored."""


class Checkpoints:
    """The checkpoints of one run.

    Writing is asynchronous: `save` copies the state and returns. A checkpoint appears under
    its final name only when complete, so a crash leaves the earlier ones.

    Args:
      folder: where they live, on a disk or in a bucket; made if missing.
      keep: how many of the latest are kept, besides the best by validation.
      warn: told one line about each checkpoint that could not be restored.
    """

    def __init__(
        self,
        folder: epath.Path | pathlib.Path,
        *,
        keep: int = 2,
        warn: Callable[[str], None] = print,
    ) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file otherwise
        self.folder = folder if in_bucket(folder) else folder.absolute()
        self._warn = warn
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[METRIC],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        latest = policies.LatestN(n=keep)
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([latest, best]),
                best_fn=lambda metrics: metrics[METRIC],
                best_mode="max",
            ),
        )

    def save(self, step: int, state: Any, *, validation: float | None = None) -> None:
        """Starts writing; a step that is already there is left as it is."""
        if step in self._manager.all_steps():
            return
        metrics = None if validation is None else {METRIC: validation}
        self._manager.save(step, args=ocp.args.StandardSave(state), metrics=metrics)

    def steps(self) -> list[int]:
        """The complete checkpoints' steps, ascending."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the highest validation accuracy (the later of equals); else the last."""
        best = self._manager.best_step()
        return best if best is not None else self._manager.latest_step()

    def restore_last(self, target: Any) -> tuple[int, Any]:
        """The latest checkpoint that can be read, as the shapes and placement of `target`.

        Raises:
          CheckpointError: if there is none.
        """
        return self._restore(sorted(self.steps(), reverse=True), target)

    def restore_best(self, target: Any) -> tuple[int, Any]:
        """The best checkpoint; where it is damaged, the latest that can be read.

        Raises:
          CheckpointError: if there is none.
        """
        best = self.best_step()
        others = [step for step in sorted(self.steps(), reverse=True) if step != best]
        return self._restore(others if best is None else [best, *others], target)

    def _restore(self, steps: list[int], target: Any) -> tuple[int, Any]:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target
        )
        for step in steps:
            try:
                return step, self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
            except Exception as error:  # Orbax and TensorStore raise many kinds
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                self._warn(
                    f"checkpoint {self.folder / str(step)} cannot be read "
                    f"({reason[:120]}); trying the one before"
                )
        raise CheckpointError(f"no readable checkpoint in {self.folder}")

    def wait(self) -> None:
        """Until everything started is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and releases the folder."""
        self._manager.wait_until_finished()
        self._manager.close()
