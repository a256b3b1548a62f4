"""Residual networks with normalisation and activation before each convolution."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
from jax import Array

from jaxrobust.models._depths import BLOCKS, BOTTLENECKS, named
from jaxrobust.models._layers import (
    Activation,
    Dtype,
    Layers,
    Padding,
    check_choice,
    torch_dense,
)

Shortcut = Literal["activated", "raw", "raw_3x3"]


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the features at the end."""

    features: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers, features, stride = self.layers, self.features, self.stride
        # (features, kernel size, stride); the stride of a bottleneck is on its 3x3.
        convs = [(features, 3, stride), (features, 3, 1)]
        if self.bottleneck:
            convs = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        y = active = layers.act(layers.norm("norm1")(x, train=train))
        for index, conv in enumerate(convs, start=1):
            if index > 1:
                y = layers.act(layers.norm(f"norm{index}")(y, train=train))
            y = layers.conv(*conv, name=f"conv{index}")(y)
        if stride != 1 or x.shape[-1] != y.shape[-1]:
            source = active if self.shortcut == "activated" else x
            size = 3 if self.shortcut == "raw_3x3" else 1
            x = layers.conv(y.shape[-1], size, stride, name="shortcut")(source)
        return x + y


class PreActResNet(nn.Module):
    """See `preact_resnet18`."""

    num_classes: int = 10
    blocks: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    shortcut: Shortcut = "activated"
    final_norm: bool = True
    image_padding: int = 0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: Layers = Layers()
    remat: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
        x = layers.images(images, self.mean, self.std, self.image_padding)
        x = layers.conv(self.width, name="stem")(x)
        for stage, blocks in enumerate(self.blocks, start=1):
            features = self.width * 2 ** (stage - 1)
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                x = block(
                    features,
                    stride,
                    self.bottleneck,
                    self.shortcut,
                    layers,
                    name=f"stage{stage}_block{index}",
                )(x, train)
            self.sow("intermediates", f"stage{stage}", x)
        if self.final_norm:
            x = layers.act(layers.norm("norm")(x, train=train))
        x = layers.pool(x)
        self.sow("intermediates", "pooled", x)
        return torch_dense(self.num_classes, x.shape[-1], "dense")(x)


SUMMARY = """Pre-activation ResNet-{depth} for images of about 32 x 32 pixels.

The defaults are SCORE's; its PreActResNet-18 has 11,172,170 parameters. DeepMind's (12,548,426) is
`activation="silu", shortcut="raw_3x3", padding="same"` with the data set's `mean`
and `std`; Wong et al. and Andriushchenko et al. use `shortcut="raw", final_norm=False`.
"""
OPTIONS = """
  activation: "relu", "silu" (the papers' Swish) or "softplus" (with beta 10).
  shortcut: what a shortcut that changes the shape reads: a 1x1 convolution of the
    "activated" or of the "raw" input of the block, or a 3x3 convolution ("raw_3x3").
  padding: of the convolutions with stride 2: "symmetric", PyTorch's, or "same", which pads
    even sizes only below and to the right.
  final_norm: normalise and activate once more before the pooling.
  image_padding: pixels of black added on each side, before the normalisation.
"""
REFERENCES = """
  He et al., Identity Mappings in Deep Residual Networks, 2016 (arXiv:1603.05027); Pang et
  al., 2022 (arXiv:2202.10103); Rebuffi et al., 2021 (arXiv:2103.01946).
"""


def _of_depth(depth: int, parameters: int):  # type checkers infer what it returns
    """The factory of one depth."""

    def make(
        *,
        num_classes: int = 10,
        width: int = 64,
        activation: Activation = "relu",
        shortcut: Shortcut = "activated",
        padding: Padding = "symmetric",
        final_norm: bool = True,
        image_padding: int = 0,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        bn_momentum: float = 0.9,
        dtype: Dtype | None = None,
        remat: bool = False,
    ) -> PreActResNet:
        check_choice("shortcut", shortcut, get_args(Shortcut))
        return PreActResNet(
            num_classes,
            BLOCKS[depth],
            depth in BOTTLENECKS,
            width,
            shortcut,
            final_norm,
            image_padding,
            tuple(mean),
            tuple(std),
            Layers(activation, padding, bn_momentum, dtype),
            remat,
        )

    texts = {"summary": SUMMARY, "options": OPTIONS, "references": REFERENCES}
    return named(make, "preact_resnet", depth, parameters=parameters, **texts)


preact_resnet18 = _of_depth(18, 11172170)
preact_resnet34 = _of_depth(34, 21280330)
preact_resnet50 = _of_depth(50, 23513162)
