"""Convolutions that are equivariant to quarter turns (p4), and to mirror images too (p4m).

Features have a group axis before the channels, `[b, h, w, g, c]`. Turning the image turns the
planes and permutes the group axis. p4 index r: r quarter turns counter-clockwise; p4m index
4 m + r: those, then flipped top to bottom if m = 1. z2 is the group of nothing, one plane.
"""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxrobust.models._layers import Dtype, check_choice

Group = Literal["z2", "p4", "p4m"]
ORDERS: dict[str, int] = {"z2": 1, "p4": 4, "p4m": 8}


def lifting_conv(
    images: Array, kernel: Array, *, group: Group, stride: int = 1, pad: int = 0
) -> Array:
    """Correlates images with a kernel moved by every element of the group.

    Args:
      images: `[b, h, w, i]`.
      kernel: `[k, k, i, o]`.
      group: "z2", "p4" (order 4) or "p4m" (order 8).
      stride: in pixels. On even sizes, strides above 1 break equivariance.
      pad: black pixels on every side.

    Returns:
      Features `[b, h', w', g, o]`.

    Raises:
      ValueError: if the group is unknown or the kernel not square.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import models
      >>> features = models.lifting_conv(jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 4)), group="p4")
      >>> features.shape
      (1, 3, 3, 4, 4)

    References:
      Cohen and Welling, Group Equivariant Convolutional Networks, 2016 (arXiv:1602.07576), 6.2.
    """
    _check(kernel, group)
    # [k, k, i, g, o]: the channels that one moved kernel makes stay together.
    bank = jnp.stack([_move(kernel, g) for g in range(ORDERS[group])], 3)
    return _correlate(images, bank, stride, pad)


def group_conv(
    features: Array, kernel: Array, *, group: Group, stride: int = 1, pad: int = 0
) -> Array:
    """Correlates features on the group with a kernel on the group.

    Args:
      features: `[b, h, w, g, i]`.
      kernel: `[k, k, g, i, o]`.
      group: "z2", "p4" or "p4m".
      stride: in pixels. On even sizes, strides above 1 break equivariance.
      pad: black pixels on every side.

    Returns:
      Features `[b, h', w', g, o]`.

    Raises:
      ValueError: if the group is unknown, the kernel not square, or a group axis of wrong length.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import models
      >>> features, kernel = jnp.ones((1, 5, 5, 8, 2)), jnp.ones((3, 3, 8, 2, 4))
      >>> models.group_conv(features, kernel, group="p4m").shape
      (1, 3, 3, 8, 4)

    References:
      Cohen and Welling, Group Equivariant Convolutional Networks, 2016 (arXiv:1602.07576), 6.3.
    """
    _check(kernel, group)
    order = ORDERS[group]
    if not features.shape[3] == kernel.shape[2] == order:
        raise ValueError(
            f"features [b, h, w, g, i] and kernel [k, k, g, i, o] must have g = {order} for "
            f"{group!r}, got {features.shape} and {kernel.shape}"
        )
    moved = [_move(kernel[:, :, _sources(group)[g]], g) for g in range(order)]
    bank = jnp.stack(moved, 4)  # [k, k, g, i, g', o]
    bank = bank.reshape(*bank.shape[:2], -1, *bank.shape[4:])
    return _correlate(features.reshape(*features.shape[:3], -1), bank, stride, pad)


def group_pool(features: Array) -> Array:
    """The largest value over the group: `[b, h, w, g, c] -> [b, h, w, c]`, a plane that turns.

    Args:
      features: `[b, h, w, g, c]`.

    Returns:
      `[b, h, w, c]`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import models
      >>> models.group_pool(jnp.arange(4.0).reshape(1, 1, 1, 4, 1)).item()
      3.0
    """
    return jnp.max(features, 3)


def pool_planes(features: Array, reduce: Callable) -> Array:
    """2x2 pooling of every plane; exactly equivariant, since it refuses odd sizes."""
    (b, height, width), rest = features.shape[:3], features.shape[3:]
    if min(height, width) < 2 or height % 2 or width % 2:
        raise ValueError(
            f"images must leave planes of even size to pool, here they leave ({height}, {width}): "
            "choose another image size or other stages"
        )
    return reduce(features.reshape(b, height // 2, 2, width // 2, 2, *rest), (2, 4))


class GroupConv(nn.Module):
    """A group convolution, or a lifting convolution where the input has no group axis.

    Kernels are drawn uniformly in +-1/sqrt(i k k), the group's size not counted, as published.
    One bias per channel, equal on all elements of the group, or it would not be equivariant.
    """

    features: int
    size: int = 3
    stride: int = 1
    pad: int = 0
    group: Group = "p4"
    bias: bool = False
    dtype: Dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        inputs = x.shape[-1]
        lifted = (ORDERS[self.group],) if x.ndim == 5 else ()
        bound = (inputs * self.size**2) ** -0.5
        shape = (self.size, self.size, *lifted, inputs, self.features)
        parameters = [self.param("kernel", _uniform(bound), shape, jnp.float32)]
        if self.bias:
            parameters.append(self.param("bias", _uniform(bound), shape[-1:], jnp.float32))
        dtype = None if self.dtype is None else jnp.dtype(self.dtype)
        x, kernel, *bias = nn.dtypes.promote_dtype(x, *parameters, dtype=dtype)
        conv = group_conv if lifted else lifting_conv
        x = conv(x, kernel, group=self.group, stride=self.stride, pad=self.pad)
        return x + bias[0][None, None, None, None] if self.bias else x


def _uniform(bound: float) -> nn.initializers.Initializer:
    def init(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def _check(kernel: Array, group: str) -> None:
    check_choice("group", group, get_args(Group))
    if kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must be square to be turned, got shape {kernel.shape}")


def _move(kernel: Array, g: int) -> Array:
    """The kernel's plane moved by element `g`: turned, then flipped top to bottom."""
    turned = jnp.rot90(kernel, g % 4)
    return turned[::-1] if g >= 4 else turned


@functools.cache
def _sources(group: Group) -> np.ndarray:
    """`[g, h] -> g^-1 h`: which input plane's weights element h of output plane g uses."""
    order = ORDERS[group]

    def times(a: int, b: int) -> int:
        # Moving a flip to the front of a turn reverses the turn: R M = M R^-1.
        (m, r), (n, s) = divmod(a, 4), divmod(b, 4)
        return 4 * (m ^ n) + ((-r if n else r) + s) % 4

    def inverse(a: int) -> int:
        return a if a >= 4 else (-a) % 4

    return np.array([[times(inverse(g), h) for h in range(order)] for g in range(order)])


def _correlate(x: Array, bank: Array, stride: int, pad: int) -> Array:
    """`x` `[b, h, w, i]` with a bank `[k, k, i, g, o]` -> `[b, h', w', g, o]`."""
    out = jax.lax.conv_general_dilated(
        x,
        bank.reshape(*bank.shape[:3], -1),
        (stride, stride),
        [(pad, pad)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.reshape(*out.shape[:3], *bank.shape[3:])
