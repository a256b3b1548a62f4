"""The front of points in the plane of two accuracies."""

import numpy as np
from numpy.typing import ArrayLike

from jaxrobust.inputs import InputError, as_array, as_number


def front(clean: ArrayLike, robust: ArrayLike) -> list[int]:
    """The points that no other point beats in both accuracies.

    Args:
      clean: `[n]` clean accuracies.
      robust: `[n]` robust accuracies, in the same order.

    Returns:
      Indices of the front's points by rising clean accuracy; of equal points the first. Along the
      front the clean accuracy rises and the robust one falls.

    Raises:
      InputError: if the two are not finite numbers of one length.

    Example:
      >>> from jaxrobust import evaluation
      >>> evaluation.front([0.9, 0.8, 0.85, 0.7], [0.3, 0.5, 0.2, 0.5])
      [1, 0]
    """
    x, y = as_points(clean, robust)
    kept: list[int] = []
    for place in np.lexsort((np.arange(len(x)), -y, -x)):
        if not kept or y[place] > y[kept[-1]]:
            kept.append(int(place))
    return kept[::-1]


def as_points(clean: ArrayLike, robust: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two lists of accuracies as arrays.

    Args:
      clean: `[n]`.
      robust: `[n]`.

    Returns:
      Both in float64.

    Raises:
      InputError: if the two are not finite numbers of one length.
    """
    for name, values in (("clean", clean), ("robust", robust)):
        if np.size(as_array(values, name=name)):  # an empty list is one of no numbers
            as_number(values, name=name)
    x, y = (np.asarray(values, np.float64) for values in (clean, robust))
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(
            f"clean and robust must be numbers of one length [n], got shapes {x.shape} and "
            f"{y.shape}"
        )
    return x, y
