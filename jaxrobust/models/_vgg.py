"""VGG16 with batch normalisation, for 32 x 32 images."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from jaxrobust.models._layers import Activation, Dtype, Layers, torch_dense

# (convolutions, multiple of the width) between the five poolings.
_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class VGG(nn.Module):
    """See `vgg16`."""

    num_classes: int = 10
    width: int = 64
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    layers: Layers = Layers()
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        if min(images.shape[1:3]) < 32:
            raise ValueError(f"images must have 32 x 32 pixels or more, not {images.shape}")
        layers = dataclasses.replace(self.layers, axis_name=self.axis_name)
        x = layers.images(images, self.mean, self.std)
        for stage, (convs, multiple) in enumerate(_STAGES, start=1):
            for index in range(convs):
                name = f"stage{stage}_{{}}{index}"
                x = layers.conv(multiple * self.width, bias=True, name=name.format("conv"))(x)
                x = layers.act(layers.norm(name.format("norm"))(x, train=train))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
            self.sow("intermediates", f"stage{stage}", x)
        x = layers.pool(x)
        self.sow("intermediates", "pooled", x)
        return torch_dense(self.num_classes, x.shape[-1], "dense")(x)


def vgg16(
    *,
    num_classes: int = 10,
    width: int = 64,
    activation: Activation = "relu",
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    bn_momentum: float = 0.9,
    dtype: Dtype | None = None,
) -> VGG:
    """VGG16 with batch normalisation and one dense layer, for images of 32 x 32 pixels.

    Args:
      num_classes: number of classes `k`.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      activation: "relu", "silu" or "softplus" (with beta 10).
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.
      bn_momentum: share of the old running statistics that an update keeps, in [0, 1].
      dtype: "bfloat16" or "float32" for the computation, None for the images' type; parameters,
        statistics and logits stay float32.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1], at least 32 x 32 -> logits
      `[b, num_classes]`. The features "stage1" to "stage5" (after the pooling) and "pooled" are
      sown into the collection "intermediates".

    Raises:
      ValueError: if an option is unknown; when called, if the images are too small.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model, images = models.vgg16(), jnp.zeros((1, 32, 32, 3))
      >>> shapes = jax.eval_shape(model.init, jax.random.key(0), images)
      >>> sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
      14728266

    References:
      Simonyan and Zisserman, 2014 (arXiv:1409.1556); Kamath et al., 2020 (arXiv:2002.11318).
    """
    layers = Layers(activation, bn_momentum=bn_momentum, dtype=dtype)
    return VGG(num_classes, width, tuple(mean), tuple(std), layers)
