"""The variables of our networks as PyTorch state dicts: the inverse of the import."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from jaxrobust.models._torch_names import Layout, layouts

_AXES = {4: (3, 2, 0, 1), 2: (1, 0)}


def to_torch_state_dict(variables: Mapping[str, Any], model: nn.Module) -> dict[str, np.ndarray]:
    """A network's variables under PyTorch's names, for the authors' own classes.

    Counters of batches (`num_batches_tracked`) are not among them, and neither are the mean and the
    standard deviation of the images, which are the network's own constants.

    Args:
      variables: `{"params": ..., "batch_stats": ...}` of the network.
      model: one of this package's networks. A wide or a pre-activation network with
        `padding="same"` gets the names of DeepMind's classes, any other those of the papers'.

    Returns:
      PyTorch's names -> arrays in PyTorch's layouts (kernels `[out, in, h, w]`), which
      `from_torch_state_dict` turns back into the same variables.

    Raises:
      ValueError: if the PyTorch names of the network are unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import models
      >>> model = models.small_cnn()
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
      >>> models.to_torch_state_dict(variables, model)["classifier.fc3.weight"].shape
      (10, 200)
    """
    known = layouts(model)
    same = getattr(getattr(model, "layers", None), "padding", None) == "same"
    layout = known[-1 if same else 0]
    return {
        layout.key(path): _torch_layout(np.asarray(value), path[-2], layout)
        for path, value in flax.traverse_util.flatten_dict(dict(variables)).items()
    }


def _torch_layout(value: np.ndarray, layer: str, layout: Layout) -> np.ndarray:
    """Kernels with the output channels first; a flattening with the channels first."""
    channels, axes = layout.flattened.get(layer), _AXES.get(value.ndim)
    value = value if axes is None else value.transpose(axes)
    if value.ndim == 2 and channels is not None:
        side = math.isqrt(value.shape[1] // channels)
        value = value.reshape(-1, side, side, channels).transpose(0, 3, 1, 2)
        value = value.reshape(len(value), -1)
    return np.ascontiguousarray(value)
