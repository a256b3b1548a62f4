"""Wide residual networks, in TRADES' form and in that of DeepMind's robust networks."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.models._layers import (
    Activation,
    Dtype,
    Layers,
    Padding,
    kaiming_normal_fan_out,
    torch_uniform,
)


class _Block(nn.Module):
    features: int
    stride: int
    layers: Layers
    squeeze: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers = self.layers
        active = layers.act(layers.norm("norm1")(x, train=train))
        y = layers.conv(self.features, 3, self.stride, name="conv1")(active)
        y = layers.act(layers.norm("norm2")(y, train=train))
        y = layers.conv(self.features, name="conv2")(y)
        if self.squeeze:
            y = y * self._excitation(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            # The activated input feeds the shortcut too; an identity carries the raw one.
            x = layers.conv(self.features, 1, self.stride, name="shortcut")(active)
        return x + y

    def _excitation(self, y: Array) -> Array:
        """A factor in (0, 1) for each channel, from the channels' means."""
        layers, hidden = self.layers, round(self.squeeze * self.features)
        mean = jnp.mean(y, (1, 2), keepdims=True)
        mean = nn.relu(layers.conv(hidden, 1, bias=True, name="squeeze1")(mean))
        return nn.sigmoid(layers.conv(self.features, 1, bias=True, name="squeeze2")(mean))


class WideResNet(nn.Module):
    """See `wide_resnet`."""

    num_classes: int = 10
    blocks: Sequence[int] = (5, 5, 5)
    features: Sequence[int] = (160, 320, 640)
    stem: int = 16
    image_padding: int = 0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: Layers = Layers(kernel_init=kaiming_normal_fan_out)
    remat: bool = False
    axis_name: str | None = None
    squeeze: float = 0.0  # share of the channels in the squeeze-and-excitation; 0 for none
    scan: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
        x = layers.images(images, self.mean, self.std, self.image_padding)
        x = layers.conv(self.stem, name="stem")(x)
        for stage, (blocks, features) in enumerate(
            zip(self.blocks, self.features, strict=True), start=1
        ):
            names = [f"stage{stage}_block{index}" for index in range(blocks)]
            strides = [2 if stage > 1 else 1] + [1] * (blocks - 1)
            alone = 1 if self.scan and not self.is_initializing() else blocks
            for name, stride in zip(names[:alone], strides, strict=False):
                x = block(features, stride, layers, self.squeeze, name=name)(x, train)
            if names[alone:]:
                equal = _Block(features, 1, layers, self.squeeze, parent=None)
                x = self._scanned(equal, names[alone:], x, train)
            self.sow("intermediates", f"stage{stage}", x)
        x = layers.pool(layers.act(layers.norm("norm")(x, train=train)))
        self.sow("intermediates", "pooled", x)
        return nn.Dense(self.num_classes, kernel_init=torch_uniform, name="dense")(x)

    def _scanned(self, block: _Block, names: Sequence[str], x: Array, train: bool) -> Array:
        """Equal blocks as one loop over their variables, which stay those of the single blocks."""
        collections = [name for name in ("params", "batch_stats") if name in self.variables]
        variables = [{c: self.variables[c][name] for c in collections} for name in names]

        def body(x: Array, own: dict[str, Any]) -> tuple[Array, Any]:
            x, changed = block.apply(own, x, train, mutable=["batch_stats"])
            return x, changed.get("batch_stats", {})

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
        x, statistics = jax.lax.scan(jax.checkpoint(body) if self.remat else body, x, stacked)
        if train and self.is_mutable_collection("batch_stats"):
            for index, name in enumerate(names):
                own = jax.tree.map(lambda leaf, i=index: leaf[i], statistics)
                self.put_variable("batch_stats", name, own)
        return x


def wide_resnet(
    *,
    num_classes: int = 10,
    depth: int = 34,
    width: int = 10,
    activation: Activation = "relu",
    padding: Padding = "symmetric",
    image_padding: int = 0,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    bn_momentum: float = 0.9,
    dtype: Dtype | None = None,
    remat: bool = False,
    scan: bool = False,
) -> WideResNet:
    """A wide residual network WRN-depth-width for images of about 32 x 32 pixels.

    The defaults are TRADES' WRN-34-10. DeepMind's form, which SCORE and most later work use, is
    `activation="silu", padding="same"` with the data set's `mean` and `std`; SCORE trains it with
    `bn_momentum=0.99`. GAIRAT's "WRN-32-10" is WRN-34-10.

    Args:
      num_classes: number of classes `k`.
      depth: number of layers, 6 n + 4 with `n` blocks in each of the three stages.
      width: the stages have 16, 32 and 64 times `width` channels.
      activation: "relu", "silu" (the papers' Swish) or "softplus" (with beta 10).
      padding: of the convolutions with stride 2: "symmetric", PyTorch's, or "same", which pads
        even sizes only below and to the right.
      image_padding: pixels of black added on each side, before the normalisation.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        statistics and logits stay float32.
      remat: recompute each block in the backward pass: less memory for about a third more time.
      scan: run the equal blocks of each stage as one loop: a smaller program, compiled sooner.
        Parameters and results are the same. Training keeps more in memory and moves more of it
        (`docs/pods.md` has figures for WRN-70-16 on a TPU), so that the default is False.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. The features
      "stage1", "stage2", "stage3" `[b, h, w, c]` and "pooled" `[b, c]` are sown into the
      collection "intermediates".

    Raises:
      ValueError: if `depth` is not 6 n + 4, or an option is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.wide_resnet(depth=10, width=1, activation="silu")
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> logits, state = model.apply(variables, jnp.zeros((2, 32, 32, 3)),
      ...     mutable=["intermediates"])
      >>> logits.shape, state["intermediates"]["stage3"][0].shape
      ((2, 10), (2, 8, 8, 64))

    References:
      Zagoruyko and Komodakis, 2016 (arXiv:1605.07146); Zhang et al., 2019 (arXiv:1901.08573);
      Gowal et al., 2020 (arXiv:2010.03593).
    """
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 6 n + 4 (10, 16, 28, 34, 70, ...), not {depth}")
    return WideResNet(
        num_classes,
        blocks=((depth - 4) // 6,) * 3,
        features=(16 * width, 32 * width, 64 * width),
        image_padding=image_padding,
        mean=tuple(mean),
        std=tuple(std),
        layers=Layers(activation, padding, bn_momentum, dtype, kaiming_normal_fan_out),
        remat=remat,
        scan=scan,
    )
