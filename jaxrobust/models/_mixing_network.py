"""Adaptive Smoothing's mixing network: from two networks' features to the mixing logit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.models._layers import BatchNorm, Dtype, Layers, torch_uniform, wide

Features = Mapping[str, Array]

# Channels of a base's first features -> what the base adds to the channels of the three stages.
_PUBLISHED_PLANES = {
    64: (128, 256, 512),
    160: (320, 512, 768),
    256: (256, 384, 512),
    512: (256, 384, 512),
}


class _Block(nn.Module):
    features: int
    stride: int
    layers: Layers

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        layers = self.layers
        active = layers.act(layers.norm("norm1")(x, train=train))
        y = layers.conv(self.features, 3, self.stride, name="conv1")(active)
        y = layers.conv(self.features, name="conv2")(
            layers.act(layers.norm("norm2")(y, train=train))
        )
        # Also where nothing changes the shape, the shortcut carries the activated input.
        x = active
        if self.stride != 1 or x.shape[-1] != self.features:
            x = layers.conv(self.features, 1, self.stride, name="shortcut")(x)
        return x + y


class MixingNetwork(nn.Module):
    """See `mixing_network`."""

    std_channels: Sequence[int]
    rob_channels: Sequence[int]
    planes: Sequence[int]
    names: Sequence[str] = ("stage1", "stage2")
    clip: float = 0.6
    dtype: Dtype | None = None
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, std_features: Features, rob_features: Features, *, train: bool = False
    ) -> Array:
        layers = Layers(dtype=self.dtype, axis_name=self.axis_name)
        first, second = (self._joined(std_features, rob_features, i) for i in (0, 1))
        x = first
        for stage, features in enumerate(self.planes, start=1):
            for index, stride in enumerate((2, 1)):
                block = _Block(features, stride, layers, name=f"stage{stage}_block{index}")
                x = block(x, train)
            if stage == 1:
                y = layers.conv(features, 1, name="merge")(second)
                if x.shape != y.shape:
                    raise ValueError(
                        f"{self.names[1]} must have half the size of {self.names[0]}, "
                        f"got {second.shape} after {first.shape}"
                    )
                x = x + y
        x = layers.pool(x)
        raw = nn.Dense(1, use_bias=False, kernel_init=torch_uniform, name="dense")(x)
        self.sow("intermediates", "raw", raw[:, 0])
        if train:
            raw = self._clipped(raw)
        norm = BatchNorm(0.99, axis_name=self.axis_name, affine=False, name="output_norm")
        return norm(raw, train=train)[:, 0]

    def _joined(self, std: Features, rob: Features, index: int) -> Array:
        """The bases' features of one depth, the accurate one's first."""
        name, maps = self.names[index], []
        for base, features, channels in (
            ("std", std, self.std_channels),
            ("rob", rob, self.rob_channels),
        ):
            if name not in features:
                raise ValueError(
                    f"{base}_features must have {name!r}; it has {', '.join(features) or 'nothing'}"
                )
            if features[name].shape[-1] != channels[index]:
                raise ValueError(
                    f"{name} of {base}_features must have {channels[index]} channels, "
                    f"got shape {features[name].shape}"
                )
            maps.append(features[name])
        if maps[0].shape[:3] != maps[1].shape[:3]:
            raise ValueError(
                f"{name} of the two bases must have the same size, "
                f"got {maps[0].shape} and {maps[1].shape}"
            )
        dtype = jnp.promote_types(maps[0].dtype, maps[1].dtype)
        joined = jnp.concatenate([x.astype(dtype) for x in maps], -1)
        return joined if self.dtype is None else joined.astype(self.dtype)

    def _clipped(self, raw: Array) -> Array:
        """Outliers of the batch cut, so that they do not move the norm's statistics."""
        values, count = raw, len(raw)
        if self.axis_name is not None:
            values = jax.lax.all_gather(raw, self.axis_name, tiled=True)
            count = len(values)
        values = jax.lax.stop_gradient(wide(values))
        mean = jnp.mean(values)
        spread = jnp.sqrt(jnp.sum(jnp.square(values - mean)) / max(count - 1, 1))
        return jnp.clip(raw, mean - self.clip * spread, mean + self.clip * spread)

    def example_inputs(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Shapes of features that `init` can be traced with."""

        def features(channels: Sequence[int]) -> dict[str, Any]:
            return {
                name: jax.ShapeDtypeStruct((1, size, size, c), jnp.float32)
                for name, size, c in zip(self.names, (8, 4), channels, strict=True)
            }

        return features(self.std_channels), features(self.rob_channels)


def mixing_network(
    *,
    std_channels: Sequence[int] = (512, 1024),
    rob_channels: Sequence[int] = (256, 512),
    planes: Sequence[int] | None = None,
    names: Sequence[str] = ("stage1", "stage2"),
    dtype: Dtype | None = None,
) -> MixingNetwork:
    """Adaptive Smoothing's mixing network (the authors' fourth version).

    It reads two feature maps of each base. The first pair goes through three stages of two
    pre-activation blocks, the second is added after stage 1; the mean over space, a linear layer
    and a batch normalisation of the one value follow, which in training is first cut to 0.6
    standard deviations around the batch's mean.

    Args:
      std_channels: channels of the accurate base's two feature maps; default: BiT ResNet-152x2.
      rob_channels: those of the robust base's; default: WRN-70-16.
      planes: channels of the three stages; default: the published ones, which are known for bases
        whose first map has 64, 160, 256 or 512 channels.
      names: what the networks call the feature maps. The second have half the first's size.
      dtype: "bfloat16" or "float32" for the computation, None for the features' type.

    Returns:
      A Flax module; features of the accurate and of the robust base, each `{name: [b, h, w, c]}`
      -> the normalised output `[b]`. `gamma_fn` makes the mixing logit of it. "raw" `[b]`, before
      the normalisation, is sown into the collection "intermediates".

    Raises:
      ValueError: if `planes` is needed; when called, if features do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> network = models.mixing_network()
      >>> shapes = jax.eval_shape(network.init, jax.random.key(0), *network.example_inputs())
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      67848704

    References:
      Bai et al., Improving the Accuracy-Robustness Trade-off of Classifiers via Adaptive
      Smoothing, 2023 (arXiv:2301.12554), Section 5.
    """
    for name, channels in (("std_channels", std_channels), ("rob_channels", rob_channels)):
        if len(channels) != 2:
            raise ValueError(f"{name} must be the channels of two feature maps, not {channels}")
    if planes is None:
        known = [_PUBLISHED_PLANES.get(c[0]) for c in (std_channels, rob_channels)]
        if known[0] is None or known[1] is None:
            raise ValueError(
                "planes must be given, such as (64, 128, 256): none is published for bases with "
                f"{std_channels[0]} and {rob_channels[0]} channels"
            )
        planes = tuple(map(sum, zip(*known, strict=True)))
    return MixingNetwork(
        tuple(std_channels), tuple(rob_channels), tuple(planes), tuple(names), dtype=dtype
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GammaFunction:
    """See `gamma_fn`."""

    variables: Any
    scale: Any
    bias: Any
    model: Any = field(metadata={"static": True})

    def __call__(self, std_features: Features, rob_features: Features) -> Array:
        """Features of both bases -> mixing logits `[b]`, in evaluation mode."""
        output = self.model.apply(self.variables, std_features, rob_features, train=False)
        return output * self.scale.astype(output.dtype) + self.bias.astype(output.dtype)


def gamma_fn(
    model: nn.Module, variables: Any, *, scale: ArrayLike = 2.0, bias: ArrayLike = 0.4
) -> GammaFunction:
    """A mixing network in evaluation mode as the mixing function of `mixing.mixed`.

    Args:
      model: of `mixing_network`, or any module with `__call__(std_features, rob_features, *,
        train) -> [b]`.
      variables: its variables.
      scale: factor on its output; the defaults are those of the published training.
      bias: added to it.

    Returns:
      A callable pytree, features of both bases -> mixing logits `[b]`; the sigmoid is the weight
      of the robust base.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import mixing, models
      >>> base, images = models.digits_cnn(width=4), jnp.zeros((2, 8, 8, 1))
      >>> logits_fn = models.logits_fn(base, base.init(jax.random.key(0), images))
      >>> network = models.mixing_network(
      ...     std_channels=(4, 8), rob_channels=(4, 8), planes=(8, 8, 8))
      >>> features = logits_fn.with_features(images)[1]
      >>> variables = network.init(jax.random.key(1), features, features)
      >>> gamma = models.gamma_fn(network, variables)
      >>> mixing.mixed(logits_fn, logits_fn, gamma=gamma)(images).shape
      (2, 10)
    """
    dtype = jnp.result_type(float)
    return GammaFunction(variables, jnp.asarray(scale, dtype), jnp.asarray(bias, dtype), model)
