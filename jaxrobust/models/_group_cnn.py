"""Small equivariant networks for digits, and the ordinary ones beside them."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxrobust.models._group_layers import Group, GroupConv, pool_planes
from jaxrobust.models._layers import (
    Activation,
    Dtype,
    Layers,
    check_choice,
    normalize,
    torch_dense,
    torch_uniform,
    wide,
)

Head = Literal["group_pool", "flatten"]
# Convolutions between poolings, and the multiple of the width that they have, as published.
_PUBLISHED = {"group_pool": ((2, 1), (4, 1)), "flatten": ((2, 1), (2, 2))}


class GroupCNN(nn.Module):
    """See `group_cnn`."""

    num_classes: int = 10
    group: Group = "p4"
    width: int = 10
    stages: Sequence[tuple[int, int]] = _PUBLISHED["group_pool"]
    head: Head = "group_pool"
    batch_norm: bool = True
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: Layers = Layers()
    remat: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        x = layers.images(images, self.mean, self.std)
        for stage, (convs, multiple) in enumerate(self.stages, start=1):
            x = pool_planes(x, jnp.max) if stage > 1 else x
            for index in range(convs):
                name = f"stage{stage}_{{}}{index}"
                x = self._conv(multiple * self.width, name.format("conv"))(x)
                if self.batch_norm:
                    x = layers.norm(name.format("norm"))(x, train=train)
                x = layers.act(x)
            self.sow("intermediates", f"stage{stage}", x)
        if self.head == "flatten":
            x = wide(pool_planes(x, jnp.max)).reshape(len(x), -1)
            x = layers.act(torch_dense(50, x.shape[-1], "dense1")(x))
            self.sow("intermediates", "pooled", x)
            return torch_dense(self.num_classes, 50, "dense2")(x)
        height, width = x.shape[1:3]
        if height != width:
            raise ValueError(f"images must be square for head 'group_pool', not {images.shape}")
        # A kernel over all that is left: one number per class and element of the group.
        top = self._conv(self.num_classes, "top", size=height, bias=True)(x)
        logits = jnp.max(wide(top), (1, 2, 3))
        self.sow("intermediates", "pooled", logits)
        return logits

    def _conv(self, features: int, name: str, size: int = 3, bias: bool = False) -> GroupConv:
        conv = nn.remat(GroupConv) if self.remat else GroupConv
        bias = bias or not self.batch_norm
        return conv(features, size, group=self.group, bias=bias, dtype=self.layers.dtype, name=name)


def group_cnn(
    *,
    num_classes: int = 10,
    group: Group = "p4",
    width: int = 10,
    stages: Sequence[tuple[int, int]] | None = None,
    head: Head = "group_pool",
    batch_norm: bool = True,
    activation: Activation = "relu",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    bn_momentum: float = 0.9,
    dtype: Dtype | None = None,
    remat: bool = False,
) -> GroupCNN:
    """The P4CNN for digits: 3x3 group convolutions without padding, and a head over all of it.

    By default that of Cohen and Welling for 28 x 28 pixels. With the head "group_pool" the
    logits do not change when the image is turned by 90 degrees (and mirrored, for p4m). Their
    ordinary twin is `group_cnn(group="z2", width=20)`. For 8 x 8 digits: `stages=[(2, 1)]`.

    Args:
      num_classes: number of classes `k`.
      group: "p4" (quarter turns), "p4m" (and mirror images) or "z2" (an ordinary network).
      width: channels, each with as many planes as the group has elements.
      stages: (convolutions, multiple of the width), with 2x2 max pooling between them; default:
        (2, 1), (4, 1) for "group_pool", (2, 1), (2, 2) for "flatten".
      head: "group_pool" correlates with kernels over the whole plane and takes the maximum over
        the group: invariant. "flatten" pools 2x2 and flattens planes, group axis included, into
        two dense layers (50, `num_classes`): not invariant, the form of the published code.
      batch_norm: normalise each channel over batch, planes and group; otherwise convolutions
        have a bias.
      activation: "relu", "silu" or "softplus" (with beta 10).
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        statistics and logits stay float32.
      remat: recompute each convolution in the backward pass.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. "stage1", ...
      `[b, h', w', g, c']` and "pooled" are sown into the collection "intermediates".

    Raises:
      ValueError: if an option is unknown; when called, if a plane of odd size would be pooled
        (which breaks equivariance), or nothing is left of it.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model, images = models.group_cnn(), jnp.zeros((1, 28, 28, 1))
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      24620

    References:
      Cohen and Welling, Group Equivariant Convolutional Networks, 2016 (arXiv:1602.07576), 8.1.
      Kamath et al., 2020 (arXiv:2002.11318).
    """
    check_choice("group", group, get_args(Group))
    check_choice("head", head, get_args(Head))
    layers = Layers(activation, bn_momentum=bn_momentum, dtype=dtype)
    pairs = tuple((convs, multiple) for convs, multiple in stages or _PUBLISHED[head])
    return GroupCNN(
        num_classes, group, width, pairs, head, batch_norm, tuple(mean), tuple(std), layers, remat
    )


class StdCNN(nn.Module):
    """See `std_cnn`."""

    num_classes: int = 10
    dropout: float = 0.5
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        if min(images.shape[1:3]) < 16:
            raise ValueError(f"images must have 16 x 16 pixels or more, not {images.shape}")
        x = normalize(images, self.mean, self.std)
        for stage, features in enumerate((10, 20), start=1):
            x = nn.Conv(
                features, (5, 5), padding="VALID", kernel_init=torch_uniform, name=f"conv{stage}"
            )(x)
            if stage == 2:  # whole channels
                x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
            x = nn.relu(nn.max_pool(x, (2, 2), (2, 2)))
            self.sow("intermediates", f"stage{stage}", x)
        x = x.reshape(len(x), -1)
        x = nn.relu(torch_dense(50, x.shape[-1], "dense1")(x))
        self.sow("intermediates", "pooled", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return torch_dense(self.num_classes, 50, "dense2")(x)


def std_cnn(
    *,
    num_classes: int = 10,
    dropout: float = 0.5,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> StdCNN:
    """The ordinary MNIST network of the spatial trade-off: two 5x5 convolutions, two dense layers.

    Args:
      num_classes: number of classes `k`.
      dropout: rate, of whole channels after the second convolution and of the hidden layer, in
        [0, 1); needs a `dropout` key in training.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.

    Returns:
      A Flax module; images `[b, 28, 28, 1]` in [0, 1] -> logits `[b, num_classes]`. "stage1",
      "stage2" and "pooled" are sown into the collection "intermediates".

    Raises:
      ValueError: when called, if the images are smaller than 16 x 16 pixels.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model, images = models.std_cnn(), jnp.zeros((1, 28, 28, 1))
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      21840

    References:
      Kamath et al., 2020 (arXiv:2002.11318): their StdCNN for MNIST. For CIFAR-10 see `vgg16`.
    """
    return StdCNN(num_classes, dropout, tuple(mean), tuple(std))
