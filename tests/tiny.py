"""The tiny network of the golden files, and how to read its parameters."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.models._layers import BatchNorm


def tiny_params(data: dict[str, np.ndarray], prefix: str = "params") -> dict[str, Array]:
    """The parameters stored under `prefix`, in Flax layouts."""
    stored = {
        k.removeprefix(f"{prefix}."): v for k, v in data.items() if k.startswith(f"{prefix}.")
    }
    return {k: jnp.asarray(v) for k, v in stored.items() if not k.endswith(("_oihw", "_oi"))}


def tiny_logits(
    params: dict[str, Array], images: Array, *, train: bool = False
) -> tuple[Array, dict[str, Array]]:
    """Logits, and the batch statistics (mean, unbiased variance) where there is a norm layer."""
    x = _conv(images, params["conv1_kernel"], params["conv1_bias"])
    statistics: dict[str, Array] = {}
    if "bn_scale" in params:
        mean, var = params["bn_mean"], params["bn_var"]
        if train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            count = x.size // x.shape[-1]
            statistics = {"bn_mean": mean, "bn_var": var * count / (count - 1)}
        gain = params["bn_scale"] / jnp.sqrt(var + 1e-5)
        x = (x - _row(mean)) * _row(gain) + _row(params["bn_bias"])
    x = _conv(jax.nn.silu(x), params["conv2_kernel"], params["conv2_bias"])
    x = jax.nn.silu(x).mean((1, 2))
    return x @ params["dense_kernel"] + params["dense_bias"][None], statistics


def _conv(x: Array, kernel: Array, bias: Array) -> Array:
    out: Any = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return out + _row(bias)


def _row(v: Array) -> Array:
    return v[None, None, None]


class TinyNet(nn.Module):
    """The same network as a Flax module with BatchNorm."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        dtype = images.dtype
        x = nn.Conv(8, (3, 3), param_dtype=dtype, name="conv1")(images)
        x = nn.silu(BatchNorm(axis_name=self.axis_name, name="bn")(x, train=train))
        x = nn.silu(nn.Conv(8, (3, 3), param_dtype=dtype, name="conv2")(x))
        return nn.Dense(10, param_dtype=dtype, name="dense")(x.mean((1, 2)))


def tiny_variables(data: dict[str, np.ndarray]) -> dict[str, Any]:
    """The golden `params_bn` as variables of `TinyNet`."""
    flat = tiny_params(data, "params_bn")
    layers = ("conv1", "conv2", "dense")
    params = {n: {k: flat[f"{n}_{k}"] for k in ("kernel", "bias")} for n in layers}
    params["bn"] = {k: flat[f"bn_{k}"] for k in ("scale", "bias")}
    return {
        "params": params,
        "batch_stats": {"bn": {k: flat[f"bn_{k}"] for k in ("mean", "var")}},
    }
