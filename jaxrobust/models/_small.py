"""Small networks: TRADES' MNIST network, a digits network, a multilayer perceptron."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from jaxrobust.models._layers import BatchNorm, kaiming_normal, normalize, torch_dense


class SmallCNN(nn.Module):
    """See `small_cnn`."""

    num_classes: int = 10
    dropout: float = 0.5
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = normalize(images, self.mean, self.std)
        for stage, features in enumerate((32, 64), start=1):
            for layer in (1, 2):
                x = nn.Conv(
                    features,
                    (3, 3),
                    padding="VALID",
                    kernel_init=kaiming_normal,
                    name=f"conv{stage}_{layer}",
                )(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
            self.sow("intermediates", f"stage{stage}", x)
        x = x.reshape(len(x), -1)
        x = nn.relu(torch_dense(200, x.shape[-1], "dense1")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.relu(torch_dense(200, 200, "dense2")(x))
        zeros = nn.initializers.zeros
        return nn.Dense(self.num_classes, kernel_init=zeros, bias_init=zeros, name="dense3")(x)


def small_cnn(
    *,
    num_classes: int = 10,
    dropout: float = 0.5,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> SmallCNN:
    """TRADES' MNIST network: four 3x3 convolutions, three dense layers, 312,202 parameters.

    The last layer starts at zero, as published: the first attack finds no gradient and
    returns its random start.

    Args:
      num_classes: number of classes `k`.
      dropout: rate between the dense layers, in [0, 1); needs a `dropout` key in training.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.

    Returns:
      A Flax module; images `[b, 28, 28, 1]` in [0, 1] -> logits `[b, num_classes]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> variables = models.small_cnn().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables))
      312202

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Section 5 (the network is Carlini and Wagner's).
    """
    return SmallCNN(num_classes, dropout, tuple(mean), tuple(std))


class BinaryCNN(nn.Module):
    """See `binary_cnn`."""

    dropout: float = 0.5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = nn.relu(
            nn.max_pool(nn.Conv(10, (5, 5), padding="VALID", name="conv1")(images), (2, 2), (2, 2))
        )
        x = nn.Conv(20, (5, 5), padding="VALID", name="conv2")(x)
        # Whole channels are dropped, as in the published network.
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
        x = nn.relu(nn.max_pool(x, (2, 2), (2, 2)))
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(50, name="dense1")(x))
        self.sow("intermediates", "pooled", x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        score = nn.Dense(1, name="dense2")(x)
        return jnp.concatenate([-score / 2, score / 2], -1)


def binary_cnn(*, num_classes: int = 2, dropout: float = 0.5) -> BinaryCNN:
    """TRADES' network for two MNIST digits: one score, 21,381 parameters.

    The score `f` becomes the logits `(-f/2, f/2)`, so that class 1 is `f > 0` and their difference
    is `f`.

    Args:
      num_classes: 2.
      dropout: rate, in [0, 1); needs a `dropout` key in training.

    Returns:
      A Flax module; images `[b, 28, 28, 1]` in [0, 1] -> logits `[b, 2]`.

    Raises:
      ValueError: if `num_classes` is not 2.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> variables = models.binary_cnn().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
      >>> sum(leaf.size for leaf in jax.tree.leaves(variables))
      21381

    References:
      Zhang et al., 2019 (arXiv:1901.08573), the MNIST experiment of Section 4.
    """
    if num_classes != 2:
        raise ValueError(f"num_classes must be 2 for binary_cnn, got {num_classes}")
    return BinaryCNN(dropout)


class DigitsCNN(nn.Module):
    """See `digits_cnn`."""

    num_classes: int = 10
    width: int = 16
    batch_norm: bool = False
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = normalize(images, self.mean, self.std)
        for layer, (features, stride) in enumerate(((self.width, 1), (2 * self.width, 2)), 1):
            x = nn.Conv(features, (3, 3), stride, kernel_init=kaiming_normal, name=f"conv{layer}")(
                x
            )
            if self.batch_norm:
                x = BatchNorm(axis_name=self.axis_name, name=f"norm{layer}")(x, train=train)
            x = nn.relu(x)
            self.sow("intermediates", f"stage{layer}", x)
        return nn.Dense(self.num_classes, name="dense")(x.reshape(len(x), -1))


def digits_cnn(
    *,
    num_classes: int = 10,
    width: int = 16,
    batch_norm: bool = False,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> DigitsCNN:
    """Two 3x3 convolutions (the second with stride 2) and a dense layer, for tiny images.

    Args:
      num_classes: number of classes `k`.
      width: channels of the first convolution; the second has twice as many.
      batch_norm: normalise the batch after each convolution.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.digits_cnn()
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
      >>> model.apply(variables, jnp.zeros((2, 8, 8, 1))).shape
      (2, 10)
    """
    return DigitsCNN(num_classes, width, batch_norm, tuple(mean), tuple(std))


class MLP(nn.Module):
    """See `mlp`."""

    num_classes: int = 10
    hidden: Sequence[int] = (64, 64)
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        x = normalize(images, self.mean, self.std).reshape(len(images), -1)
        for layer, features in enumerate(self.hidden, start=1):
            x = nn.relu(nn.Dense(features, kernel_init=kaiming_normal, name=f"dense{layer}")(x))
        return nn.Dense(self.num_classes, name=f"dense{len(self.hidden) + 1}")(x)


def mlp(
    *,
    num_classes: int = 10,
    hidden: Sequence[int] = (64, 64),
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> MLP:
    """A multilayer perceptron with ReLU on the flattened image.

    Args:
      num_classes: number of classes `k`.
      hidden: widths of the hidden layers; empty for a linear classifier.
      mean: subtracted from every channel, inside the network.
      std: divides every channel, inside the network.

    Returns:
      A Flax module; images `[b, h, w, c]` in [0, 1] -> logits `[b, num_classes]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.mlp(hidden=(8,))
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
      >>> model.apply(variables, jnp.zeros((2, 4, 4, 1))).shape
      (2, 10)
    """
    return MLP(num_classes, tuple(hidden), tuple(mean), tuple(std))
