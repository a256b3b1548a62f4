"""The settings that the published mixed classifiers are deployed with."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class DetectorLoss(NamedTuple):
    """Weights of `mixing_loss` that a mixing network was trained with.

    Attributes:
      bce: of the detector's cross-entropy.
      ce: of the classification's cross-entropy.
      product: of their product.
      clean_scale: weight of a clean example against an attacked one.
    """

    bce: float
    ce: float
    product: float
    clean_scale: float


@dataclasses.dataclass(frozen=True)
class AdaptiveSmoothing:
    """One published Adaptive Smoothing classifier.

    Attributes:
      std_scale: factor on the accurate base's logits.
      rob_scale: factor on the robust base's logits.
      gamma_scale: factor on the mixing network's normalised output, in evaluation.
      gamma_bias: added to it; trained with scale 2 and bias 0.4.
      alpha_scale: width of the range of alpha in evaluation.
      alpha_bias: lower end of the range.
      loss: what the mixing network was trained with.
      clean: published clean accuracy in percent, or None.
      autoattack: published AutoAttack accuracy in percent at 8/255, or None.
    """

    std_scale: float
    rob_scale: float
    gamma_scale: float
    gamma_bias: float
    alpha_scale: float
    alpha_bias: float
    loss: DetectorLoss
    clean: float | None = None
    autoattack: float | None = None

    @property
    def options(self) -> dict[str, float]:
        """The keyword arguments for `mixed`."""
        names = ("std_scale", "rob_scale", "alpha_scale", "alpha_bias")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class NutsSettings:
    """One published MixedNUTS classifier.

    Attributes:
      rob: the robust base's name in RobustBench.
      s: scale of the transformation.
      p: its power.
      c: its bias.
      alpha: weight of the robust base.
      surrogate_alpha: the same in the attacks' surrogate: that of mixing without transformation.
      beta: share of robust right predictions, in percent, that the search had to keep.
      eps: l_inf radius of the published figures.
      clean: clean accuracy in percent.
      autoattack: AutoAttack accuracy in percent.
      adaptive: accuracy under the authors' adaptive AutoAttack in percent.
    """

    rob: str
    s: float
    p: float
    c: float
    alpha: float
    surrogate_alpha: float
    beta: float
    eps: float
    clean: float
    autoattack: float
    adaptive: float

    @property
    def options(self) -> dict[str, float]:
        """The keyword arguments for `mixed_nuts`."""
        names = ("s", "p", "c", "alpha", "surrogate_alpha")
        return {name: getattr(self, name) for name in names}


# Bases: BiT-M ResNet-152x2 and a WRN-70-16; ResNet-18 pairs in the last, which has a
# configuration but no published figure.
ADAPTIVE_SMOOTHING: Mapping[str, AdaptiveSmoothing] = MappingProxyType(
    {
        "cifar10-edm": AdaptiveSmoothing(
            1.2, 0.3, 2.0, 1.05, 0.04, 0.96, DetectorLoss(1.5, 0.0, 0.3, 1.0), 95.23, 68.06
        ),
        "cifar100-edm": AdaptiveSmoothing(
            2.0, 1.0, 2.0, 1.3, 0.15, 0.84, DetectorLoss(1.5, 0.0, 0.2, 1.0), 85.21, 38.72
        ),
        "cifar100-trades": AdaptiveSmoothing(
            2.0, 1.0, 2.0, 1.0, 0.1, 0.815, DetectorLoss(1.0, 0.5, 0.1, 2.0), 80.18, 35.15
        ),
        "cifar10-resnet18": AdaptiveSmoothing(
            1.0, 1.0, 3.0, 20.0, 0.75, 0.2, DetectorLoss(1.0, 0.5, 0.1, 2.0)
        ),
    }
)

MIXED_NUTS: Mapping[str, NutsSettings] = MappingProxyType(
    {
        "cifar10": NutsSettings(
            "Peng2023Robust",
            s=5.0,
            p=4.0,
            c=-1.1,
            alpha=0.99875006,
            surrogate_alpha=0.95705354,
            beta=98.5,
            eps=8 / 255,
            clean=95.19,
            autoattack=70.08,
            adaptive=69.71,
        ),
        "cifar100": NutsSettings(
            "Wang2023Better_WRN-70-16",
            s=0.61157538,
            p=3.57142857,
            c=-2.14285714,
            alpha=0.98603005,
            surrogate_alpha=0.97069954,
            beta=98.5,
            eps=8 / 255,
            clean=83.08,
            autoattack=41.91,
            adaptive=41.80,
        ),
        "imagenet": NutsSettings(
            "Liu2023Comprehensive_Swin-L",
            s=0.02353547,
            p=2.71428571,
            c=-0.28571429,
            alpha=0.99712664,
            surrogate_alpha=0.90683792,
            beta=99.0,
            eps=4 / 255,
            clean=81.48,
            autoattack=58.62,
            adaptive=58.50,
        ),
    }
)
