"""Accuracies with their uncertainty."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from jaxrobust.inputs import InputError, as_array


class Accuracy(NamedTuple):
    """A share of correct points with its 95 % Wilson interval.

    Attributes:
      value: share in [0, 1].
      low: lower end of the interval.
      high: upper end of the interval.
      correct: number of correct points.
      total: number of points.
    """

    value: float
    low: float
    high: float
    correct: int
    total: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def accuracy(mask: np.ndarray) -> Accuracy:
    """The share of True in a boolean mask `[n]`, with a 95 % confidence interval.

    The interval is over the choice of test points (Wilson's score interval); it says nothing
    about training seeds.

    Args:
      mask: `[n]` bool, `n >= 1`.

    Returns:
      `Accuracy`.

    Raises:
      ValueError: if it is not such a mask.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> print(evaluation.accuracy(np.arange(100) < 80))
      80.00 % [71.1, 86.7]
    """
    mask = np.asarray(as_array(mask, name="mask"))
    if mask.dtype != bool or mask.ndim != 1 or not len(mask):
        raise InputError(
            f"mask must be bool [n] with n >= 1, got {mask.dtype} of shape {mask.shape}"
        )
    correct, total = int(np.sum(mask)), len(mask)
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return Accuracy(correct / total, float(interval.low), float(interval.high), correct, total)
