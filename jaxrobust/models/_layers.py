"""Layers that Flax does not have in the form the papers' networks need."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

Activation = Literal["relu", "silu", "softplus"]
Padding = Literal["symmetric", "same"]
Dtype = Literal["float32", "bfloat16"]

# He et al. (2015) over the fan-in, untruncated, as the papers' PyTorch code initialises.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# What torch.nn.Linear and Conv2d draw by default: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# The wide residual networks' convolutions: N(0, 2 / (k k c_out)).
kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's running statistics.

    Differs from `flax.linen.BatchNorm` in one point: the running variance is updated with the
    unbiased batch variance (n / (n - 1)), so that statistics agree with the papers' code.
    Statistics, scale and bias are float32 whatever the compute dtype.

    Attributes:
      momentum: share of the old running value that an update keeps (1 - PyTorch's momentum).
      epsilon: added to the variance.
      axis_name: mapped axis whose devices share their batch statistics; None for per device.
      affine: a learned scale and bias follow the normalisation.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalises `x` `[..., c]` over all axes but the last."""
        features = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (features,), jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, (features,), jnp.float32)
        wide = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = self._statistics(wide)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                count = self._count(x)
                unbiased = var * (count / max(count - 1, 1))
                self._update(running_mean, mean)
                self._update(running_var, unbiased)
        shape = (1,) * (x.ndim - 1) + (features,)
        gain = jax.lax.rsqrt(var + self.epsilon)
        if self.affine:
            gain = scale * gain
        normalised = (wide - mean.reshape(shape)) * gain.reshape(shape)
        if self.affine:
            normalised = normalised + bias.reshape(shape)
        return normalised.astype(x.dtype)

    def _statistics(self, x: Array) -> tuple[Array, Array]:
        axes = tuple(range(x.ndim - 1))
        mean = self._across_devices(jnp.mean(x, axes, keepdims=True))
        var = self._across_devices(jnp.mean(jnp.square(x - mean), axes))
        return mean.reshape(-1), var

    def _across_devices(self, value: Array) -> Array:
        return value if self.axis_name is None else jax.lax.pmean(value, self.axis_name)

    def _count(self, x: Array) -> int:
        devices = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return devices * (x.size // x.shape[-1])

    def _update(self, variable: nn.Variable, new: Array) -> None:
        new = jax.lax.stop_gradient(new).astype(variable.value.dtype)
        variable.value = self.momentum * variable.value + (1 - self.momentum) * new


def normalize(images: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """`(images - mean) / std` per channel: networks take images in [0, 1] and do this inside.

    The constants are rounded to float32 first, as PyTorch's are, also under float64.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floating point in [0, 1], not {images.dtype}")
    shape = (1,) * (images.ndim - 1) + (-1,)

    def constant(name: str, values: Sequence[float]) -> Array:
        if len(values) not in (1, images.shape[-1]):
            raise ValueError(
                f"{name} has {len(values)} values, the images {images.shape[-1]} channels"
            )
        return jnp.asarray(np.asarray(values, np.float32), images.dtype).reshape(shape)

    return (images - constant("mean", mean)) / constant("std", std)


def torch_dense(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """A dense layer initialised as `torch.nn.Linear` is."""

    def bias_init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -1, 1) / jnp.sqrt(jnp.asarray(fan_in, dtype))

    return nn.Dense(features, kernel_init=torch_uniform, bias_init=bias_init, name=name)


@dataclasses.dataclass(frozen=True)
class Layers:
    """The choices that all layers of a residual network share, and the layers made from them.

    Attributes:
      activation: "relu", "silu" (Swish) or "softplus" (with beta 10).
      padding: of convolutions with stride 2: one row and column on each side ("symmetric",
        PyTorch's), or TensorFlow's SAME ("same"): for even sizes only below and to the right.
      bn_momentum: share of the old running statistics that an update keeps.
      dtype: type of the computation; parameters, statistics and logits are float32 whatever it
        is. None computes in the images' type.
      kernel_init: initialises the convolutions.
      axis_name: mapped axis whose devices share their batch statistics.
    """

    activation: Activation = "relu"
    padding: Padding = "symmetric"
    bn_momentum: float = 0.9
    dtype: Dtype | None = None
    kernel_init: Callable[..., Array] = torch_uniform
    axis_name: str | None = None

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, get_args(Activation))
        check_choice("padding", self.padding, get_args(Padding))
        check_choice("dtype", self.dtype, (None, *get_args(Dtype)))

    def images(
        self, images: Array, mean: Sequence[float], std: Sequence[float], pad: int = 0
    ) -> Array:
        """Images padded with black, then normalised, in the type of the computation."""
        images = wide(images)
        if pad:
            images = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        images = normalize(images, mean, std)
        return images if self.dtype is None else images.astype(self.dtype)

    def conv(
        self, features: int, size: int = 3, stride: int = 1, *, bias: bool = False, name: str
    ) -> nn.Conv:
        """A convolution that keeps the image's size, divided by `stride`."""
        around = ((size // 2, size // 2),) * 2
        return nn.Conv(
            features,
            (size, size),
            stride,
            padding="SAME" if self.padding == "same" else around,
            use_bias=bias,
            dtype=None if self.dtype is None else jnp.dtype(self.dtype),
            kernel_init=self.kernel_init,
            name=name,
        )

    def norm(self, name: str) -> BatchNorm:
        """Batch normalisation."""
        return BatchNorm(self.bn_momentum, axis_name=self.axis_name, name=name)

    def act(self, x: Array) -> Array:
        """The activation."""
        if self.activation == "silu":
            return nn.silu(x)
        if self.activation == "softplus":
            return nn.softplus(10 * x) / 10
        return nn.relu(x)

    def pool(self, x: Array) -> Array:
        """The mean over space `[b, h, w, c] -> [b, c]`, in float32 so that logits are."""
        return jnp.mean(wide(x), (1, 2))


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def wide(x: Array) -> Array:
    """`x` in float32 if it is floating point of fewer bits, else as it is."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4
    return x.astype(jnp.float32) if narrow else x
