"""One run as the loop sees it: its metrics, its validation, its files and its failure."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from jaxrobust.experiment import Experiment
from jaxrobust.processes import is_first
from jaxrobust.reasons import one_line
from jaxrobust.training._checkpoints import Checkpoints
from jaxrobust.training._reporting import MetricsFile

COLLAPSE = 0.5  # of the best robust accuracy so far is catastrophic overfitting
Listener = Callable[[int, Mapping[str, Any]], object]


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite; the message names step, batch and last checkpoint."""


class Member:
    """One run of a group; a run whose loss is not finite takes part no longer.

    Args:
      experiment: what is trained.
      folder: of the run.
      keep: latest checkpoints kept.
      on_metrics: called with each row that is written, in the first process.
      say: told of damaged checkpoints, and of errors of `on_metrics`.

    Attributes:
      folder: of the run.
      checkpoints: in the folder.
      failure: the error of a loss that is not finite, or `None`.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: epath.Path,
        *,
        keep: int,
        on_metrics: Listener | None,
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.checkpoints = Checkpoints(folder / "checkpoints", keep=keep, warn=say)
        self.failure: NonFiniteLossError | None = None
        self._experiment, self._listener, self._say = experiment, on_metrics, say
        self._file: MetricsFile | None = None
        self._score: float | None = None  # by validation, of the last step
        self._best: float | None = None  # by validation, so far
        self._collapsed = False
        self._sums: dict[str, float] = {}
        self._count, self._since = 0, time.perf_counter()
        self._earlier = 0  # of these, the steps before an interruption

    def open(self, step: int, steps_per_epoch: int, *, tensorboard: bool) -> None:
        """Opens the metrics file, which the first process writes; later rows than `step` go."""
        self._steps_per_epoch = steps_per_epoch
        if step % steps_per_epoch:
            self._sums = self.checkpoints.sums(step)
            self._count = step % steps_per_epoch if self._sums else 0
            self._earlier = self._count
        if is_first():
            path = self.folder / "metrics.jsonl"
            self._file = MetricsFile(path, resume_step=step, tensorboard=tensorboard)
            lost = step // steps_per_epoch - self._file.kept
            if lost > 0:
                self._say(
                    f"warning: {path} is damaged: the rows of {lost} of {step // steps_per_epoch} "
                    "finished epochs are missing"
                )
        self._since = time.perf_counter()

    def see(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Takes the metrics of a step; a loss that is not finite becomes the run's `failure`."""
        if self.failure is not None:
            return
        values = {name: float(value) for name, value in metrics.items()}
        if not math.isfinite(values["loss"]):
            self.failure = self._non_finite(step, values["loss"])
            return
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._score = None

    def figures(self) -> dict[str, float]:
        """For the bar: the epoch's means so far and the rate."""
        shown = ("loss", "accuracy", "robust_accuracy")
        means = {name: self._sums[name] / self._count for name in shown if name in self._sums}
        return means | self._rate()

    def end_epoch(
        self,
        step: int,
        *,
        learning_rate: float,
        validate: Callable[[], dict[str, float]] | None,
        more: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Validates the run and writes the epoch's row.

        Args:
          step: the epoch's last.
          learning_rate: of this step.
          validate: the accuracies on held-out examples; `None` where it is not time for them.
          more: further parts of the row.

        Returns:
          The row.
        """
        row: dict[str, Any] = {"epoch": step // self._steps_per_epoch}
        row |= {name: total / self._count for name, total in self._sums.items()} | self._rate()
        self._sums, self._count, self._earlier, self._since = {}, 0, 0, time.perf_counter()
        found = validate() if validate is not None else {}
        self._score = found.get("robust_accuracy")
        self._watch(step, self._score, row.get("robust_accuracy"))
        row["learning_rate"] = learning_rate
        row |= {f"validation_{name}": value for name, value in found.items()} | dict(more)
        if self._file is not None:
            self._file.write(step, row)
            self._tell_listener(step, row)
        return {"step": step, **row}

    def save(self, step: int, state: Any) -> None:
        """Starts to save the state after the last step that was seen."""
        if self.failure is None:
            self.checkpoints.save(step, state, validation=self._score, sums=self._sums)

    def close(self, *, lost: bool) -> None:
        """Closes the files; where a process is lost, checkpoints are not waited for."""
        if self._file is not None:
            self._file.close()
        if not lost:  # closing waits for all processes
            self.checkpoints.close()

    def _watch(self, step: int, score: float | None, trained: float | None) -> None:
        """Tells once when robustness on held-out examples collapses, as one-step training may."""
        if score is None:
            return
        best = self._best if self._best is not None else self.checkpoints.best_score()
        collapsed = best is not None and score < COLLAPSE * best
        if collapsed and not self._collapsed:
            against = "" if trained is None else f", against the training attack {trained:.1%}"
            self._say(
                f"warning: the validation accuracy under PGD of {self._experiment.name} has fallen "
                f"from {best:.1%} to {score:.1%} at step {step}{against}: this looks like "
                "catastrophic overfitting; the best checkpoint stays that of step "
                f"{self.checkpoints.best_step()}"
            )
        self._collapsed = collapsed
        self._best = score if best is None else max(best, score)

    def _rate(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        steps = self._count - self._earlier
        return {"examples_per_second": steps * self._experiment.batch_size / seconds}

    def _tell_listener(self, step: int, row: dict[str, Any]) -> None:
        """Nothing comes back: neither changes of the row nor errors."""
        if self._listener is None:
            return
        try:
            self._listener(step, dict(row))
        except Exception as error:  # a service that cannot be reached must not end the run
            self._say(f"warning: on_metrics failed at step {step}: {one_line(error)}")

    def _non_finite(self, step: int, loss: float) -> NonFiniteLossError:
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        good = "none: no epoch was finished"
        if steps:
            good = f"checkpoint of step {steps[-1]} in {self.checkpoints.folder}"
        batch, epoch = (step - 1) % self._steps_per_epoch, (step - 1) // self._steps_per_epoch + 1
        return NonFiniteLossError(
            f"the loss of {self._experiment.name} is {loss} at step {step} "
            f"(batch {batch} of epoch {epoch}); last good checkpoint: {good}"
        )
