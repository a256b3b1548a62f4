"""Checkpoints of a run: asynchronous, the last few and the best, restored past damage."""

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from jaxrobust.processes import is_first
from jaxrobust.storage import in_bucket
from jaxrobust.training._stored import (
    METRIC,
    CheckpointError,
    restore_first,
    score_file,
    stored_score,
    stored_steps,
)


class Checkpoints:
    """The checkpoints of one run.

    Writing is asynchronous: `save` copies the state and returns. A checkpoint appears under
    its final name only when complete, so a crash leaves the earlier ones. Reading changes nothing
    in the folder, which may be read-only. The first `save` moves what could not be read to
    `damaged-STEP` beside the checkpoints, because Orbax saves only steps after those that it sees.

    Args:
      folder: where they live, on a disk or in a bucket; made when something is saved.
      keep: how many of the latest are kept, besides the best by validation.
      warn: told one line about each checkpoint, or score of one, that cannot be read.
    """

    def __init__(
        self,
        folder: epath.Path | pathlib.Path,
        *,
        keep: int = 2,
        warn: Callable[[str], None] = print,
    ) -> None:
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells of every file otherwise
        self.folder = epath.Path(folder if in_bucket(folder) else folder.absolute())
        self._keep, self._warn = keep, warn
        self._unreadable: list[int] = []
        self._writer: ocp.CheckpointManager | None = None

    def save(self, step: int, state: Any, *, validation: float | None = None) -> None:
        """Starts writing; a step that is already there is left as it is.

        Raises:
          CheckpointError: if the folder holds a later checkpoint.
        """
        writer = self._opened()
        if step in writer.all_steps():
            return
        metrics = None if validation is None else {METRIC: validation}
        if not writer.save(step, args=ocp.args.StandardSave(state), metrics=metrics):
            raise CheckpointError(
                f"step {step} cannot be saved: {self.folder} holds the later step "
                f"{writer.latest_step()}"
            )

    def steps(self) -> list[int]:
        """The complete checkpoints' steps, ascending."""
        return stored_steps(self.folder)

    def best_step(self) -> int | None:
        """The step with the highest validation accuracy (the later of equals); else the last."""
        steps = self.steps()
        scores = {step: score for step in steps if (score := self._score(step)) is not None}
        if not scores:
            return steps[-1] if steps else None
        return max(scores, key=lambda step: (scores[step], step))

    def restore_last(self, target: Any) -> tuple[int, Any]:
        """The latest checkpoint that can be read, as the shapes and placement of `target`.

        Raises:
          CheckpointError: if there is none.
        """
        return self._restore(self.steps()[::-1], target)

    def restore_best(self, target: Any) -> tuple[int, Any]:
        """The best checkpoint; where it is damaged, the latest that can be read.

        Raises:
          CheckpointError: if there is none.
        """
        best = self.best_step()
        others = [step for step in self.steps()[::-1] if step != best]
        return self._restore(others if best is None else [best, *others], target)

    def wait(self) -> None:
        """Until everything started is on disk."""
        if self._writer is not None:
            self._writer.wait_until_finished()

    def close(self) -> None:
        """Finishes writing and releases the folder."""
        if self._writer is not None:
            self._writer.wait_until_finished()
            self._writer.close()

    def _score(self, step: int) -> float | None:
        """The validation score of a step; `None`, after a warning, where it is damaged."""
        try:
            return stored_score(self.folder, step)
        except ValueError as error:
            self._warn(
                f"the validation score of checkpoint {self.folder / str(step)} cannot be read "
                f"({error}); choosing the best of the others"
            )
            return None

    def _restore(self, steps: list[int], target: Any) -> tuple[int, Any]:
        step, state = restore_first(self.folder, steps, target, warn=self._warn)
        self._unreadable = steps[: steps.index(step)]
        return step, state

    def _opened(self) -> ocp.CheckpointManager:
        """Orbax's manager, which reads the score of every step that it finds."""
        if self._writer is not None:
            return self._writer
        if is_first():
            self._set_aside()
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[METRIC],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        latest = policies.LatestN(n=self._keep)
        self._writer = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([latest, best]),
                best_fn=lambda metrics: metrics[METRIC],
                best_mode="max",
                create=True,
            ),
        )
        return self._writer

    def _set_aside(self) -> None:
        """Moves checkpoints that cannot be read, and removes scores that cannot."""
        for step in self._unreadable:
            free = self.folder / f"damaged-{step}"
            while free.exists():
                free = free.with_name(f"{free.name}-again")
            (self.folder / str(step)).rename(free)
        for step in self.steps():
            try:
                stored_score(self.folder, step)
            except ValueError:
                score_file(self.folder, step).unlink()
