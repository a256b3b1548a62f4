"""RaWRN-70-16: the wide residual network of Peng et al., with squeeze-and-excitation."""

from collections.abc import Sequence

from jaxrobust.models._layers import Dtype, Layers, kaiming_normal_fan_out
from jaxrobust.models._wide_resnet import WideResNet


def ra_wide_resnet(
    *,
    num_classes: int = 10,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    bn_momentum: float = 0.99,
    dtype: Dtype | None = None,
    remat: bool = False,
) -> WideResNet:
    """RaWRN-70-16, the robust base of MixedNUTS on CIFAR-10: 267,240,802 parameters.

    DeepMind's wide residual network with 30, 31 and 10 blocks of 216, 432 and 864 channels, and
    squeeze-and-excitation to a quarter of them in every block.

    Args:
      num_classes: number of classes `k`.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        statistics and logits stay float32.
      remat: recompute each block in the backward pass: less memory for about a third more time.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. The features
      "stage1", "stage2", "stage3" `[b, h, w, c]` and "pooled" `[b, c]` are sown into the
      collection "intermediates".

    Raises:
      ValueError: if `dtype` is unknown.

    Example:
      >>> from jaxrobust import models
      >>> model = models.ra_wide_resnet(mean=models.CIFAR10_MEAN, std=models.CIFAR10_STD)
      >>> model.blocks, model.features
      ((30, 31, 10), (216, 432, 864))

    References:
      Peng et al., Robust Principles: Architectural Design Principles for Adversarially Robust
      CNNs, 2023 (arXiv:2308.16258).
    """
    return WideResNet(
        num_classes,
        blocks=(30, 31, 10),
        features=(216, 432, 864),
        stem=96,
        mean=tuple(mean),
        std=tuple(std),
        layers=Layers("silu", "same", bn_momentum, dtype, kaiming_normal_fan_out),
        remat=remat,
        squeeze=0.25,
    )
