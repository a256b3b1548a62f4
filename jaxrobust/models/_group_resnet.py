"""ResNet-18 of group convolutions."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxrobust.models._group_cnn import Head
from jaxrobust.models._group_layers import ORDERS, Group, GroupConv, pool_planes
from jaxrobust.models._layers import Activation, Dtype, Layers, check_choice, torch_dense, wide

Downsample = Literal["stride", "pool"]


@dataclasses.dataclass(frozen=True)
class _GroupLayers(Layers):
    """The layers of a residual network on a group."""

    group: Group = "p4m"
    downsample: Downsample = "stride"

    def group_conv(self, features: int, size: int, stride: int, name: str) -> GroupConv:
        pad = size // 2
        return GroupConv(features, size, stride, pad, self.group, dtype=self.dtype, name=name)


class _GroupBlock(nn.Module):
    """Two 3x3 group convolutions and a shortcut."""

    features: int
    stride: int
    layers: _GroupLayers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers, stride = self.layers, self.stride
        if stride == 2 and layers.downsample == "pool":
            x, stride = pool_planes(x, jnp.mean), 1
        y = layers.group_conv(self.features, 3, stride, "conv1")(x)
        y = layers.act(layers.norm("norm1")(y, train=train))
        y = layers.group_conv(self.features, 3, 1, "conv2")(y)
        y = layers.norm("norm2")(y, train=train)
        if x.shape != y.shape:
            x = layers.group_conv(self.features, 1, stride, "shortcut")(x)
            x = layers.norm("shortcut_norm")(x, train=train)
        return layers.act(x + y)


class GroupResNet(nn.Module):
    """See `group_resnet18`."""

    num_classes: int = 10
    blocks: Sequence[int] = (2, 2, 2, 2)
    width: int = 64
    head: Head = "flatten"
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: _GroupLayers = _GroupLayers()
    remat: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        block = nn.remat(_GroupBlock, static_argnums=(2,)) if self.remat else _GroupBlock
        planes = ORDERS[layers.group] ** 0.5
        x = layers.images(images, self.mean, self.std)
        x = layers.group_conv(round(self.width / planes), 3, 1, "stem")(x)
        x = layers.act(layers.norm("norm")(x, train=train))
        for stage, blocks in enumerate(self.blocks, start=1):
            features = round(self.width * 2 ** (stage - 1) / planes)
            for index in range(blocks):
                stride = 2 if stage > 1 and index == 0 else 1
                name = f"stage{stage}_block{index}"
                x = block(features, stride, layers, name=name)(x, train)
            self.sow("intermediates", f"stage{stage}", x)
        x = jnp.mean(wide(x), (1, 2))  # [b, g, c], in float32 so that logits are
        x = jnp.max(x, 1) if self.head == "group_pool" else x.reshape(len(x), -1)
        self.sow("intermediates", "pooled", x)
        return torch_dense(self.num_classes, x.shape[-1], "dense")(x)


def group_resnet18(
    *,
    num_classes: int = 10,
    group: Group = "p4m",
    width: int = 64,
    head: Head = "flatten",
    downsample: Downsample = "stride",
    activation: Activation = "relu",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    bn_momentum: float = 0.9,
    dtype: Dtype | None = None,
    remat: bool = False,
) -> GroupResNet:
    """ResNet-18 on p4m or p4, for images of about 32 x 32 pixels.

    The defaults are the published GCNN, which turns with the image only roughly: strides of 2
    skip pixels that the turned image keeps (exact on sizes such as 33), and its head keeps the
    group axis. `head="group_pool", downsample="pool"` has the same logits for an image and its
    quarter turns (and mirror images, for p4m).

    Args:
      num_classes: number of classes `k`.
      group: "p4m" (quarter turns and mirror images), "p4" (quarter turns) or "z2" (none).
      width: channels of the first stage of the ordinary network; here they are divided by the
        root of the group's order (23, 45, 91, 181 for p4m), for about as many parameters.
      head: "flatten" keeps the group axis; "group_pool" takes the maximum over it.
      downsample: "stride" or "pool": 2x2 means before the block, exact on even sizes.
      activation: "relu", "silu" or "softplus" (with beta 10).
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        statistics and logits stay float32.
      remat: recompute each block in the backward pass: less memory for about a third more time.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. The features
      "stage1" to "stage4" `[b, h', w', g, c']` and "pooled" are sown into "intermediates".

    Raises:
      ValueError: if an option is unknown; when called, if a plane of odd size would be pooled.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model, images = models.group_resnet18(), jnp.zeros((1, 32, 32, 3))
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      11201415

    References:
      Cohen and Welling, Group Equivariant Convolutional Networks, 2016 (arXiv:1602.07576).
      Kamath et al., 2020 (arXiv:2002.11318): their GCNN for CIFAR-10.
    """
    check_choice("group", group, get_args(Group))
    check_choice("head", head, get_args(Head))
    check_choice("downsample", downsample, get_args(Downsample))
    layers = _GroupLayers(
        activation, bn_momentum=bn_momentum, dtype=dtype, group=group, downsample=downsample
    )
    blocks = (2, 2, 2, 2)
    return GroupResNet(num_classes, blocks, width, head, tuple(mean), tuple(std), layers, remat)
