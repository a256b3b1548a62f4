"""AttackBench's optimality: how close an attack comes to the smallest known distances."""

from typing import Literal

import numpy as np
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_array, as_choice, as_number

AREAS = ("trapezoid", "exact")


def optimality(
    distances: ArrayLike,
    best: ArrayLike,
    clean_accuracy: float | None = None,
    *,
    area: Literal["trapezoid", "exact"] = "trapezoid",
) -> float:
    r"""AttackBench's local optimality of an attack: 1 if nothing found smaller distances.

    .. math:: 1 - \frac{A(d) - A(b)}{c\, t - A(b)}, \qquad t = \max_i b_i

    A is the area under the curve of robust accuracy against eps from 0 to t, c the clean accuracy.
    AttackBench joins the points of the curve by straight lines and starts at its first point
    instead of 0. An attack that finds nothing then gets up to 1.3 instead of 0. For good attacks
    the two areas differ by a few hundredths at most. Published tables use the trapezoid; "exact" is
    the area of the step function.

    Args:
      distances: `[n]`, from the attack: 0 for clean errors, infinite where it found nothing.
      best: `[n]` smallest known distances, in most cases the minimum over all attacks.
      clean_accuracy: in [0, 1]; default: the share of points with `best` above 0.
      area: "trapezoid" or "exact".

    Returns:
      At most 1, or more if the attack beats `best`. NaN if `best` is infinite at a point, or if the
      area to compare with is 0.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> best = np.array([0.0, 0.1, 0.2, 0.4])
      >>> round(evaluation.optimality(best * 1.1, best, area="exact"), 3)
      0.94

    References:
      Cina et al., AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples, 2024
      (arXiv:2404.19460).
    """
    as_choice(area, name="area", choices=AREAS)
    found, least = (_checked(v, n) for v, n in ((distances, "distances"), (best, "best")))
    if found.shape != least.shape:
        raise InputError(
            f"distances and best must be of the same points, got shapes {found.shape} and "
            f"{least.shape}"
        )
    if clean_accuracy is None:
        clean_accuracy = float(np.mean(least > 0))
    as_number(clean_accuracy, name="clean_accuracy", low=0, high=1, lead=())
    top = least.max()
    if not np.isfinite(top):
        return float("nan")
    measure = _exact if area == "exact" else _trapezoid
    lowest = measure(least, top)
    room = clean_accuracy * top - lowest
    return float(1 - (measure(found, top) - lowest) / room) if room else float("nan")


def _checked(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(as_array(values, name=name))
    if array.ndim != 1 or not len(array):
        raise InputError(f"{name} must be [n] with n >= 1, got shape {array.shape}")
    as_number(array, name=name, low=0, infinite=True)
    return array.astype(np.float64)


def _exact(values: np.ndarray, top: float) -> float:
    """The integral of the share of larger values from 0 to `top`."""
    return float(np.minimum(values, top).mean())


def _trapezoid(values: np.ndarray, top: float) -> float:
    """AttackBench's area: straight lines between the occurring values."""
    cut = np.minimum(values, top)
    places, counts = np.unique(cut, return_counts=True)
    larger = 1 - np.cumsum(counts) / len(cut)
    return float(np.trapezoid(larger, places))
