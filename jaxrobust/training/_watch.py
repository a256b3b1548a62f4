"""The metrics of a run as its steps come in."""

import math
import time
from typing import Any

import jax

from jaxrobust.experiment import Experiment
from jaxrobust.training._checkpoints import Checkpoints


class NonFiniteLossError(Exception):
    """The loss became NaN or infinite; the message names step, batch and last checkpoint."""


class Watch:
    """Follows the metrics one step behind, so that looking at them never stalls the device."""

    def __init__(
        self, experiment: Experiment, checkpoints: Checkpoints, steps_per_epoch: int
    ) -> None:
        self._name = experiment.name
        self._batch_size = experiment.batch_size
        self._checkpoints = checkpoints
        self._steps_per_epoch = steps_per_epoch
        self._pending: tuple[int, dict[str, Any]] | None = None
        self._sums: dict[str, float] = {}
        self._count = 0
        self._since = time.perf_counter()
        self._last: dict[str, float] = {}

    def see(self, step: int, metrics: dict[str, Any]) -> None:
        """Takes the metrics of the step just dispatched; reads those of the step before."""
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Reads what is still pending.

        Raises:
          NonFiniteLossError: if its loss is not finite.
        """
        if self._pending is None:
            return
        (step, pending), self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(pending).items()}
        if not math.isfinite(values["loss"]):
            self._checkpoints.wait()
            steps = self._checkpoints.steps()
            good = f"checkpoint of step {steps[-1]} in {self._checkpoints.folder}" if steps else "none: no epoch was finished"  # fmt: skip  # noqa: E501
            raise NonFiniteLossError(
                f"the loss of {self._name} is {values['loss']} at step {step} "
                f"(batch {(step - 1) % self._steps_per_epoch} of epoch "
                f"{(step - 1) // self._steps_per_epoch + 1}); last good checkpoint: {good}"
            )
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._last = values

    def figures(self) -> dict[str, float]:
        """For the bar: the epoch's running means and the rate."""
        shown = ("loss", "accuracy", "robust_accuracy")
        count = max(self._count, 1)
        means = {name: self._sums[name] / count for name in shown if name in self._sums}
        seconds = time.perf_counter() - self._since
        return {**means, "examples_per_second": self._count * self._batch_size / seconds}

    def epoch_row(self, **more: float) -> dict[str, float]:
        """The epoch's means, and a fresh start."""
        row = {name: total / self._count for name, total in self._sums.items()}
        seconds = time.perf_counter() - self._since
        row |= {"examples_per_second": self._count * self._batch_size / seconds, **more}
        self._sums, self._count, self._since = {}, 0, time.perf_counter()
        return row
