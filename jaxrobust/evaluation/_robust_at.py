"""A method's robust accuracy at a clean accuracy between its measured points."""

import numpy as np
from numpy.typing import ArrayLike

from jaxrobust.evaluation._front import as_points, front
from jaxrobust.inputs import as_array, as_number


def robust_at(clean: ArrayLike, robust: ArrayLike, at: ArrayLike) -> np.ndarray:
    """The robust accuracy of a method's front at given clean accuracies.

    Args:
      clean: `[n]` clean accuracies of the method's points.
      robust: `[n]` robust accuracies, in the same order.
      at: `[m]` clean accuracies.

    Returns:
      `[m]`: interpolated between the two neighbours on the front; NaN where the front has no point
      on one side, because nothing was measured there.

    Raises:
      InputError: if the accuracies are not finite numbers of one length.

    Example:
      >>> from jaxrobust import evaluation
      >>> evaluation.robust_at([0.9, 0.8], [0.3, 0.5], [0.8, 0.85, 0.95]).round(3).tolist()
      [0.5, 0.4, nan]
    """
    x, y = as_points(clean, robust)
    if np.size(as_array(at, name="at")):
        as_number(at, name="at")
    places, wanted = front(x, y), np.asarray(at, np.float64)
    if not places:
        return np.full(wanted.shape, np.nan)
    return np.interp(wanted, x[places], y[places], left=np.nan, right=np.nan)
