"""The area that points dominate in the plane of two accuracies."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from jaxrobust.evaluation._front import as_points, front
from jaxrobust.inputs import InputError, as_number


def hypervolume(
    clean: ArrayLike, robust: ArrayLike, *, reference: Sequence[float] = (0.0, 0.0)
) -> float:
    r"""The area of the accuracies dominated by some point, above a reference point.

    .. math:: \mathrm{area} \bigcup_i [r_1, c_i] \times [r_2, a_i]

    with clean accuracies c and robust ones a. It grows with every point beyond the front and never
    falls, so a method is not penalised for additional worse points.

    Args:
      clean: `[n]` clean accuracies.
      robust: `[n]` robust accuracies, in the same order.
      reference: the clean and the robust accuracy of the corner. Points that are not above it in
        both add nothing.

    Returns:
      The area, in squared units of the accuracies.

    Raises:
      InputError: if the accuracies are not finite numbers of one length, or the reference is not
        two finite numbers.

    Example:
      >>> from jaxrobust import evaluation
      >>> evaluation.hypervolume([0.9, 0.8], [0.3, 0.5], reference=(0.5, 0.1))
      0.14

    References:
      Zitzler & Thiele, 1998 (Parallel Problem Solving from Nature V).
    """
    as_number(reference, name="reference")
    corner = np.asarray(reference, np.float64)
    if corner.shape != (2,):
        raise InputError(f"reference must be two numbers, got {reference}")
    x, y = as_points(clean, robust)
    above = (x > corner[0]) & (y > corner[1])
    x, y = x[above], y[above]
    places = front(x, y)
    widths = np.diff(x[places], prepend=corner[0])
    return round(float(widths @ (y[places] - corner[1])), 12)
