"""BiT: pre-activation residual networks with group norms and standardised convolutions."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.models._layers import Dtype, check_choice, kaiming_normal_fan_out, wide

_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class _StandardisedConv(nn.Module):
    """A convolution whose kernel is normalised, per output channel, at run time."""

    features: int
    size: int = 3
    stride: int = 1
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kaiming_normal_fan_out, shape, jnp.float32)
        centred = kernel - jnp.mean(kernel, (0, 1, 2), keepdims=True)
        # Two passes and the biased variance: the published weights have a mean far from zero.
        variance = jnp.mean(jnp.square(centred), (0, 1, 2), keepdims=True)
        kernel = centred / jnp.sqrt(variance + 1e-10)
        dtype = jnp.promote_types(x.dtype, kernel.dtype) if self.dtype is None else self.dtype
        return jax.lax.conv_general_dilated(
            x.astype(dtype),
            kernel.astype(dtype),
            (self.stride, self.stride),
            [(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class _Norm(nn.Module):
    """32 groups of neighbouring channels, in float32 or better, and ReLU."""

    groups: int = 32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
        # Two passes for the variance: E[x^2] - E[x]^2 loses half of the digits.
        grouped = wide(x).reshape(*x.shape[:-1], self.groups, -1)
        centred = grouped - jnp.mean(grouped, (1, 2, 4), keepdims=True)
        variance = jnp.mean(jnp.square(centred), (1, 2, 4), keepdims=True)
        y = (centred * jax.lax.rsqrt(variance + 1e-5)).reshape(x.shape)
        shape = (1, 1, 1, features)
        return nn.relu(y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)


class _Unit(nn.Module):
    middle: int
    features: int
    stride: int
    shortcut: bool
    dtype: Dtype | None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = active = _Norm(name="norm1")(x)
        # (features, kernel size, stride) of the three convolutions.
        convs = [(self.middle, 1, 1), (self.middle, 3, self.stride), (self.features, 1, 1)]
        for index, conv in enumerate(convs, start=1):
            if index > 1:
                y = _Norm(name=f"norm{index}")(y)
            y = _StandardisedConv(*conv, self.dtype, name=f"conv{index}")(y)
        if self.shortcut:
            conv = (self.features, 1, self.stride)
            x = _StandardisedConv(*conv, self.dtype, name="shortcut")(active)
        return x + y


class BiTResNet(nn.Module):
    """See `bit_resnet`."""

    num_classes: int
    units: Sequence[int]
    stem: int
    middle: Sequence[int]
    features: Sequence[int]
    image_size: int | None = 128
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)
    dtype: Dtype | None = None
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = self._prepared(images)
        x = _StandardisedConv(self.stem, 7, 2, self.dtype, name="stem")(x)
        # Zeros around, not -inf: the pooled values may be negative.
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        x = nn.max_pool(x, (3, 3), (2, 2))
        unit = nn.remat(_Unit) if self.remat else _Unit
        for stage, (units, middle, features) in enumerate(
            zip(self.units, self.middle, self.features, strict=True), start=1
        ):
            for index in range(units):
                stride = 2 if stage > 1 and index == 0 else 1
                x = unit(
                    middle,
                    features,
                    stride,
                    index == 0,
                    self.dtype,
                    name=f"stage{stage}_block{index}",
                )(x)
            self.sow("intermediates", f"stage{stage}", x)
        x = jnp.mean(wide(_Norm(name="norm")(x)), (1, 2), keepdims=True)
        self.sow("intermediates", "pooled", x[:, 0, 0])
        zeros = nn.initializers.zeros
        return nn.Conv(self.num_classes, (1, 1), kernel_init=zeros, name="dense")(x)[:, 0, 0]

    def _prepared(self, images: Array) -> Array:
        """Images enlarged, then normalised."""
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"images must be floating point in [0, 1], not {images.dtype}")
        x = wide(images)
        if self.image_size is not None and images.shape[1:3] != (self.image_size,) * 2:
            shape = (len(x), self.image_size, self.image_size, x.shape[-1])
            x = jax.image.resize(x, shape, "bilinear", antialias=False)

        def constant(values: Sequence[float]) -> Array:
            return jnp.asarray(np.asarray(values, np.float32), x.dtype).reshape(1, 1, 1, -1)

        x = (x - constant(self.mean)) / (constant(self.std) + 1e-8)
        return x if self.dtype is None else x.astype(self.dtype)


def bit_resnet(
    *,
    num_classes: int = 10,
    depth: int = 152,
    width: int = 2,
    image_size: int | None = 128,
    mean: Sequence[float] = (0.5,),
    std: Sequence[float] = (0.5,),
    dtype: Dtype | None = None,
    remat: bool = False,
) -> BiTResNet:
    """BiT (Big Transfer) ResNet-v2, the accurate base of Adaptive Smoothing and MixedNUTS.

    Images are enlarged inside the network, so attacks and radii are in the small ones' pixels.
    No batch normalisation: training and evaluation compute the same.

    Args:
      num_classes: number of classes `k`.
      depth: 50, 101 or 152.
      width: factor on all channels; the published mixed classifiers use 152x2.
      image_size: pixels per side to which images are resized bilinearly; None leaves them.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        normalisations and logits stay float32.
      remat: recompute each unit in the backward pass: less memory for about a third more time.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`. The features
      "stage1" to "stage4" `[b, h, w, c]` and "pooled" `[b, c]` are sown into the collection
      "intermediates".

    Raises:
      ValueError: if an option is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model, images = models.bit_resnet(), jnp.zeros((1, 32, 32, 3))
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      232279178

    References:
      Kolesnikov et al., Big Transfer (BiT): General Visual Representation Learning, 2020
      (arXiv:1912.11370).
    """
    check_choice("depth", depth, tuple(_UNITS))
    check_choice("dtype", dtype, (None, "float32", "bfloat16"))
    outputs = tuple(256 * width * 2**stage for stage in range(4))
    return BiTResNet(
        num_classes,
        _UNITS[depth],
        64 * width,
        tuple(features // 4 for features in outputs),
        outputs,
        image_size,
        tuple(mean),
        tuple(std),
        dtype,
        remat,
    )
