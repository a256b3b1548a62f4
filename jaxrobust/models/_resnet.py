"""Residual networks of 32 x 32 images: activation after the normalisation, after the sum."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from jaxrobust.models._depths import BLOCKS, BOTTLENECKS, named
from jaxrobust.models._layers import Activation, Dtype, Layers, torch_dense


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the features at the end."""

    features: int
    stride: int
    bottleneck: bool
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers, features, stride = self.layers, self.features, self.stride
        # (features, kernel size, stride); the stride of a bottleneck is on its 3x3.
        convs = [(features, 3, stride), (features, 3, 1)]
        if self.bottleneck:
            convs = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        y = x
        for index, conv in enumerate(convs, start=1):
            y = layers.conv(*conv, name=f"conv{index}")(y)
            y = layers.norm(f"norm{index}")(y, train=train)
            y = layers.act(y) if index < len(convs) else y
        if stride != 1 or x.shape != y.shape:
            x = layers.conv(y.shape[-1], 1, stride, name="shortcut")(x)
            x = layers.norm("shortcut_norm")(x, train=train)
        return layers.act(x + y)


class ResNet(nn.Module):
    """See `resnet18`."""

    num_classes: int = 10
    blocks: Sequence[int] = (2, 2, 2, 2)
    bottleneck: bool = False
    width: int = 64
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: Layers = Layers()
    remat: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
        x = layers.images(images, self.mean, self.std)
        x = layers.conv(self.width, name="stem")(x)
        x = layers.act(layers.norm("norm")(x, train=train))
        for stage, blocks in enumerate(self.blocks, start=1):
            features = self.width * 2 ** (stage - 1)
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"stage{stage}_block{index}"
                x = block(features, stride, self.bottleneck, layers, name=name)(x, train)
            self.sow("intermediates", f"stage{stage}", x)
        x = layers.pool(x)
        self.sow("intermediates", "pooled", x)
        return torch_dense(self.num_classes, x.shape[-1], "dense")(x)


SUMMARY = "ResNet-{depth} for images of about 32 x 32 pixels: a 3x3 stem, no early pooling."
OPTIONS = """
  activation: "relu", "silu" or "softplus" (with beta 10).
"""
REFERENCES = "He et al., Deep Residual Learning for Image Recognition, 2015 (arXiv:1512.03385)."


def _of_depth(depth: int, parameters: int):  # type checkers infer what it returns
    """The factory of one depth."""

    def make(
        *,
        num_classes: int = 10,
        width: int = 64,
        activation: Activation = "relu",
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        bn_momentum: float = 0.9,
        dtype: Dtype | None = None,
        remat: bool = False,
    ) -> ResNet:
        layers = Layers(activation, bn_momentum=bn_momentum, dtype=dtype)
        return ResNet(
            num_classes,
            BLOCKS[depth],
            depth in BOTTLENECKS,
            width,
            tuple(mean),
            tuple(std),
            layers,
            remat,
        )

    texts = {"summary": SUMMARY, "options": OPTIONS, "references": REFERENCES}
    return named(make, "resnet", depth, parameters=parameters, **texts)


resnet18 = _of_depth(18, 11173962)
resnet34 = _of_depth(34, 21282122)
resnet50 = _of_depth(50, 23520842)
