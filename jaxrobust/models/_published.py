"""Published robust networks: how to build them for their weights, and what they reached."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn

from jaxrobust.models._preact_resnet import preact_resnet18
from jaxrobust.models._rawrn import ra_wide_resnet
from jaxrobust.models._resnet import resnet50
from jaxrobust.models._wide_resnet import wide_resnet

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
CIFAR100_MEAN, CIFAR100_STD = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)

_CIFAR = {
    "cifar10": {"num_classes": 10, "mean": CIFAR10_MEAN, "std": CIFAR10_STD},
    "cifar100": {"num_classes": 100, "mean": CIFAR100_MEAN, "std": CIFAR100_STD},
}
_RAW = {"mean": (0.0,), "std": (1.0,)}
_DEEPMIND = {"activation": "silu", "padding": "same"}
# Constants that differ from the data set's usual ones.
_ENGSTROM = {"std": (0.2023, 0.1994, 0.2010)}
_RICE_CIFAR100 = {
    "mean": (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
    "std": (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
}

# Network -> its factory and what differs from the factory's defaults and the data set's constants.
_NETWORKS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "WRN-28-10": (wide_resnet, {"depth": 28, "width": 10, **_RAW}),
    "WRN-34-10": (wide_resnet, {"depth": 34, "width": 10, **_RAW}),
    "WRN-34-20 normalised": (wide_resnet, {"depth": 34, "width": 20}),
    "WRN-28-10 SiLU": (wide_resnet, {"depth": 28, "width": 10, **_DEEPMIND}),
    "WRN-34-20 SiLU": (wide_resnet, {"depth": 34, "width": 20, **_DEEPMIND}),
    "WRN-70-16 SiLU": (wide_resnet, {"depth": 70, "width": 16, **_DEEPMIND}),
    "WRN-82-8 SiLU": (wide_resnet, {"depth": 82, "width": 8, **_DEEPMIND}),
    "WRN-94-16 SiLU": (wide_resnet, {"depth": 94, "width": 16, **_DEEPMIND}),
    "WRN-106-16 SiLU": (wide_resnet, {"depth": 106, "width": 16, **_DEEPMIND}),
    "RaWRN-70-16": (ra_wide_resnet, {}),
    "PreActResNet-18": (preact_resnet18, {}),
    "PreActResNet-18 Rice": (preact_resnet18, _RICE_CIFAR100),
    "PreActResNet-18 SiLU": (preact_resnet18, {"shortcut": "raw_3x3", **_DEEPMIND}),
    "ResNet-50": (resnet50, _ENGSTROM),
}


@dataclasses.dataclass(frozen=True)
class Published:
    """One entry of RobustBench whose weights `load_torch_checkpoint` reads.

    Attributes:
      entry: its name in RobustBench.
      dataset: "cifar10" or "cifar100".
      threat: "linf" or "l2".
      network: a short name of the network.
      clean: published clean accuracy, in percent.
      autoattack: published AutoAttack accuracy at `eps`, in percent, on 10,000 images.
      autoattack_external: the figure of somebody else's evaluation, where RobustBench has one.
      eps: radius of the published figure.
    """

    entry: str
    dataset: str
    threat: str
    network: str
    clean: float
    autoattack: float
    autoattack_external: float | None = None

    @property
    def eps(self) -> float:
        """8/255 for l_inf, except TRADES' 0.031; 0.5 for l_2."""
        if self.entry == "Zhang2019Theoretically":
            return 0.031
        return 8 / 255 if self.threat == "linf" else 0.5

    @property
    def factory(self) -> Callable[..., nn.Module]:
        """The function that builds the network."""
        return _NETWORKS[self.network][0]

    @property
    def options(self) -> Mapping[str, Any]:
        """The keyword arguments with which `factory` builds the network."""
        return {**_CIFAR[self.dataset], **_NETWORKS[self.network][1]}

    def model(self, **options: Any) -> nn.Module:
        """The network; `options` override what does not change the weights (dtype, remat, ...)."""
        return self.factory(**{**self.options, **options})


def _entries(dataset: str, threat: str, *rows: tuple[Any, ...]) -> tuple[Published, ...]:
    return tuple(Published(entry, dataset, threat, *rest) for entry, *rest in rows)


_CIFAR10_LINF = _entries(
    "cifar10",
    "linf",
    ("Zhang2019Theoretically", "WRN-34-10", 84.92, 53.08),
    ("Zhang2020Geometry", "WRN-28-10", 89.36, 59.64),
    ("Pang2022Robustness_WRN28_10", "WRN-28-10 SiLU", 88.61, 61.04),
    ("Pang2022Robustness_WRN70_16", "WRN-70-16 SiLU", 89.01, 63.35),
    ("Gowal2020Uncovering_28_10_extra", "WRN-28-10 SiLU", 89.48, 62.8, 62.76),
    ("Gowal2020Uncovering_34_20", "WRN-34-20 SiLU", 85.64, 56.86, 56.82),
    ("Gowal2020Uncovering_70_16", "WRN-70-16 SiLU", 85.29, 57.2, 57.14),
    ("Gowal2020Uncovering_70_16_extra", "WRN-70-16 SiLU", 91.1, 65.88, 65.87),
    ("Gowal2021Improving_28_10_ddpm_100m", "WRN-28-10 SiLU", 87.5, 63.44, 63.38),
    ("Gowal2021Improving_70_16_ddpm_100m", "WRN-70-16 SiLU", 88.74, 66.11, 66.1),
    ("Gowal2021Improving_R18_ddpm_100m", "PreActResNet-18 SiLU", 87.35, 58.63, 58.5),
    ("Rebuffi2021Fixing_28_10_cutmix_ddpm", "WRN-28-10 SiLU", 87.33, 60.75, 60.73),
    ("Rebuffi2021Fixing_70_16_cutmix_ddpm", "WRN-70-16 SiLU", 88.54, 64.25, 64.2),
    ("Rebuffi2021Fixing_106_16_cutmix_ddpm", "WRN-106-16 SiLU", 88.5, 64.64, 64.58),
    ("Rebuffi2021Fixing_70_16_cutmix_extra", "WRN-70-16 SiLU", 92.23, 66.58, 66.56),
    ("Rebuffi2021Fixing_R18_ddpm", "PreActResNet-18 SiLU", 83.53, 56.66),
    ("Wang2023Better_WRN-28-10", "WRN-28-10 SiLU", 92.44, 67.31),
    ("Wang2023Better_WRN-70-16", "WRN-70-16 SiLU", 93.25, 70.69),
    ("Engstrom2019Robustness", "ResNet-50", 87.03, 49.25),
    ("Rice2020Overfitting", "WRN-34-20 normalised", 85.34, 53.42),
    ("Cui2023Decoupled_WRN-28-10", "WRN-28-10 SiLU", 92.16, 67.73),
    ("Cui2023Decoupled_WRN-34-10", "WRN-34-10", 85.31, 57.09),
    ("Bartoldson2024Adversarial_WRN-82-8", "WRN-82-8 SiLU", 93.11, 71.59),
    ("Bartoldson2024Adversarial_WRN-94-16", "WRN-94-16 SiLU", 93.68, 73.71),
    ("Peng2023Robust", "RaWRN-70-16", 93.27, 71.07),
    ("Carmon2019Unlabeled", "WRN-28-10", 89.69, 59.53),
    ("Standard", "WRN-28-10", 94.78, 0.0),
)
_CIFAR10_L2 = _entries(
    "cifar10",
    "l2",
    ("Gowal2020Uncovering", "WRN-70-16 SiLU", 90.9, 74.5),
    ("Gowal2020Uncovering_extra", "WRN-70-16 SiLU", 94.74, 80.53),
    ("Rebuffi2021Fixing_28_10_cutmix_ddpm", "WRN-28-10 SiLU", 91.79, 78.8),
    ("Rebuffi2021Fixing_70_16_cutmix_ddpm", "WRN-70-16 SiLU", 92.41, 80.42),
    ("Rebuffi2021Fixing_70_16_cutmix_extra", "WRN-70-16 SiLU", 95.74, 82.32),
    ("Rebuffi2021Fixing_R18_cutmix_ddpm", "PreActResNet-18 SiLU", 90.33, 75.86),
    ("Wang2023Better_WRN-28-10", "WRN-28-10 SiLU", 95.16, 83.68),
    ("Wang2023Better_WRN-70-16", "WRN-70-16 SiLU", 95.54, 84.97),
    ("Engstrom2019Robustness", "ResNet-50", 90.83, 69.24),
    ("Rice2020Overfitting", "PreActResNet-18", 88.67, 67.68),
)
_CIFAR100_LINF = _entries(
    "cifar100",
    "linf",
    ("Pang2022Robustness_WRN28_10", "WRN-28-10 SiLU", 63.66, 31.08),
    ("Pang2022Robustness_WRN70_16", "WRN-70-16 SiLU", 65.56, 33.05),
    ("Gowal2020Uncovering", "WRN-70-16 SiLU", 60.86, 30.03),
    ("Gowal2020Uncovering_extra", "WRN-70-16 SiLU", 69.15, 36.88),
    ("Rebuffi2021Fixing_28_10_cutmix_ddpm", "WRN-28-10 SiLU", 62.41, 32.06),
    ("Rebuffi2021Fixing_70_16_cutmix_ddpm", "WRN-70-16 SiLU", 63.56, 34.64),
    ("Rebuffi2021Fixing_R18_ddpm", "PreActResNet-18 SiLU", 56.87, 28.5),
    ("Wang2023Better_WRN-28-10", "WRN-28-10 SiLU", 72.58, 38.83, 38.77),
    ("Wang2023Better_WRN-70-16", "WRN-70-16 SiLU", 75.22, 42.67, 42.66),
    ("Rice2020Overfitting", "PreActResNet-18 Rice", 53.83, 18.95),
    ("Cui2023Decoupled_WRN-28-10", "WRN-28-10 SiLU", 73.85, 39.18),
    ("Cui2023Decoupled_WRN-34-10", "WRN-34-10", 65.76, 31.91),
    ("Cui2023Decoupled_WRN-34-10_autoaug", "WRN-34-10", 65.93, 32.52),
)
PUBLISHED = _CIFAR10_LINF + _CIFAR10_L2 + _CIFAR100_LINF


def published(
    entry: str,
    *,
    dataset: Literal["cifar10", "cifar100"] = "cifar10",
    threat: Literal["linf", "l2"] = "linf",
) -> Published:
    """Looks a published network up by its name in RobustBench.

    Args:
      entry: RobustBench's name, such as "Wang2023Better_WRN-28-10"; one name can stand for
        several networks that differ in the data set or the threat.
      dataset: "cifar10" or "cifar100".
      threat: "linf" or "l2".

    Returns:
      A `Published`; its `model()` builds the network.

    Raises:
      ValueError: if there is no such entry; it names those of this data set and threat.

    Example:
      >>> from jaxrobust import models
      >>> wang = models.published("Wang2023Better_WRN-28-10", dataset="cifar10", threat="linf")
      >>> wang.clean, wang.autoattack, wang.eps == 8 / 255
      (92.44, 67.31, True)
      >>> model = wang.model(dtype="bfloat16")

    References:
      Croce et al., RobustBench, 2021 (arXiv:2010.09670).
    """
    same = [p for p in PUBLISHED if (p.dataset, p.threat) == (dataset, threat)]
    for candidate in same:
        if candidate.entry == entry:
            return candidate
    known = ", ".join(p.entry for p in same) or "none for this data set and threat"
    raise ValueError(f"entry must be one of {known}; not {entry!r} ({dataset}, {threat})")
