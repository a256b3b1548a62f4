"""The scaling law of adversarial training: robustness as a function of parameters and images.

Fitted by Bartoldson et al. to TRADES with generated images on CIFAR-10 (wide ResNets, l_inf 8/255,
ten attack steps). It says nothing of other recipes, data or threats.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxrobust.inputs import InputError, as_number

FLOPS_PER_PARAMETER_AND_IMAGE = 7822
BASE_FID = 1.65
APPROACHES = (2, 3)

# Loss -> accuracy under the authors' margin attack, from three of their printed predictions.
ACCURACY = (1.2574949163082845, -0.7495829295025612)

# A / N^alpha + B' / D^beta + E', the last two scaled by powers of (1 + FID) / (1 + 1.65).
_A2, _B2, _E2 = 6.686980024164729, 7.551688897933183, 0.5603731625795364
_ALPHA2, _BETA2 = 0.24434519315396275, 0.2281458937440602
_FID_E2, _FID_B2 = 0.15552449537214338, -0.2767735799358655

# (B / D + (Q FID)^(kappa / beta))^beta + E + epsilon log(1 + FID) + A / N^alpha.
_A3, _B3, _E3, _Q3 = 6.00080741, 7000.0, 0.515022255, 0.00659350845
_ALPHA3, _BETA3, _KAPPA3, _EPSILON3 = 0.241841188, 0.217406245, 0.604209556, 0.0357334903
LAW = {"A": _A3, "B": _B3, "E": _E3, "Q": _Q3}  # the constants of approach 3
LAW |= {"alpha": _ALPHA3, "beta": _BETA3, "kappa": _KAPPA3, "epsilon": _EPSILON3}


class Optimum(NamedTuple):
    """The best use of a budget; numbers, or arrays of the budgets' shape.

    Attributes:
      params: number of parameters of the network.
      images: number of training images seen, repetitions included.
      loss: predicted margin loss under attack.
      accuracy: predicted accuracy under the authors' margin attack, in [0, 1]; AutoAttack is lower.
    """

    params: Any
    images: Any
    loss: Any
    accuracy: Any


def predicted_loss(params: ArrayLike, images: ArrayLike, *, fid: float, approach: int = 3) -> Any:
    """The predicted test loss (margin loss under attack) of a training run.

    Args:
      params: number of parameters of the network, `[...]`.
      images: number of training images seen, repetitions included; broadcasts with `params`.
      fid: Frechet inception distance of the generated images; 1.65 and 6.79 in the paper's runs.
      approach: 2 or 3, the paper's two fits; 3 is their final one.

    Returns:
      `[...]`, float64.

    Raises:
      ValueError: for another approach, or a number out of range.

    Example:
      >>> from jaxrobust import scaling
      >>> round(float(scaling.predicted_loss(267e6, 3e8, fid=1.4)), 3)
      0.702

    References:
      Bartoldson et al., Adversarial Robustness Limits via Scaling-Law and Human-Alignment
      Studies, 2024 (arXiv:2404.09349), Section 4.
    """
    _check(fid, approach, params=params, images=images)
    n, d = np.asarray(params, np.float64), np.asarray(images, np.float64)
    if approach == 2:
        scale = (1 + fid) / (1 + BASE_FID)
        return _A2 / n**_ALPHA2 + _B2 * scale**_FID_B2 / d**_BETA2 + _E2 * scale**_FID_E2
    quality = (_Q3 * fid) ** (_KAPPA3 / _BETA3)
    limit = _E3 + _EPSILON3 * np.log1p(fid)
    return (_B3 / d + quality) ** _BETA3 + limit + _A3 / n**_ALPHA3


def predicted_accuracy(loss: ArrayLike) -> Any:
    """The accuracy under the authors' margin attack that belongs to a predicted loss.

    Args:
      loss: of `predicted_loss`, `[...]`.

    Returns:
      `[...]`, float64, in [0, 1].

    Raises:
      ValueError: if the loss is no number from 0.344 to 1.677, where the fitted line gives shares.

    Example:
      >>> from jaxrobust import scaling
      >>> round(float(scaling.predicted_accuracy(0.690983)), 4)
      0.7395
    """
    # Beyond these losses the line gives no accuracy: above 1, or below 0.
    low, high = ((share - ACCURACY[0]) / ACCURACY[1] for share in (1, 0))
    as_number(loss, name="loss", low=low, high=high)
    return ACCURACY[0] + ACCURACY[1] * np.asarray(loss, np.float64)


def compute_optimal(flops: ArrayLike, *, fid: float, approach: int = 3) -> Optimum:
    """The size of network and the number of images that make the most of a budget.

    A run costs 7822 operations per parameter and image: a TRADES step with ten attack steps.

    Args:
      flops: floating-point operations of the whole training, `[...]`.
      fid: as in `predicted_loss`.
      approach: 2 or 3, as in `predicted_loss`.

    Returns:
      `Optimum`.

    Raises:
      ValueError: for another approach, or a number out of range.

    Example:
      >>> from jaxrobust import scaling
      >>> best = scaling.compute_optimal(1e21, fid=1.65)
      >>> round(best.params / 1e6), round(best.images / 1e6), round(float(best.accuracy), 3)
      (193, 663, 0.735)

    References:
      Bartoldson et al., 2024 (arXiv:2404.09349), Section 4.
    """
    _check(fid, approach, flops=flops)
    pairs = np.asarray(flops, np.float64) / FLOPS_PER_PARAMETER_AND_IMAGE
    images = _images_2(pairs, fid) if approach == 2 else _images_3(pairs, fid)
    params = pairs / images
    loss = predicted_loss(params, images, fid=fid, approach=approach)
    return Optimum(params, images, loss, predicted_accuracy(loss))


def _images_2(pairs: Any, fid: float) -> Any:
    """Where the derivative of approach 2 along a fixed budget is 0, in closed form."""
    b = _B2 * ((1 + fid) / (1 + BASE_FID)) ** _FID_B2
    both = _ALPHA2 + _BETA2
    return pairs ** (_ALPHA2 / both) * (_BETA2 * b / (_ALPHA2 * _A2)) ** (1 / both)


def _images_3(pairs: Any, fid: float) -> Any:
    """The same of approach 3, by bisection: the slope in log D rises from below 0 to above."""
    quality = (_Q3 * fid) ** (_KAPPA3 / _BETA3)
    low, high = np.full_like(pairs, -100.0), np.full_like(pairs, 200.0)
    for _ in range(100):
        middle = (low + high) / 2
        images = np.exp(middle)
        of_params = _ALPHA3 * _A3 * (images / pairs) ** _ALPHA3
        of_images = _BETA3 * (_B3 / images + quality) ** (_BETA3 - 1) * _B3 / images
        rising = of_params > of_images
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.exp((low + high) / 2)


def _check(fid: float, approach: int, **positive: ArrayLike) -> None:
    for name, value in positive.items():
        as_number(value, name=name, low=0, positive=True)
    as_number(fid, name="fid", low=0)
    if approach not in APPROACHES:
        raise InputError(f"approach must be 2 or 3, got {approach!r}")
