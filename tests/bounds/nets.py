"""The networks of the golden files, as plain functions of their parameters."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
}


def channels(v):
    return v[None, None, None]


def params_of(data, prefix="", dtype=np.float64):
    head = f"{prefix}params."
    return {
        k.removeprefix(head): jnp.asarray(v, dtype) for k, v in data.items() if k.startswith(head)
    }


def operations(data, prefix=""):
    return json.loads(str(data[f"{prefix}spec"]))


def forward(ops, params, x, statistics=None):
    """Logits; with a dict `statistics` batch norms use the batch's, or those that it holds already."""
    for op in ops:
        kind, name = op["op"], op.get("name", "")
        if kind == "flatten":
            x = x.reshape(len(x), -1)
        elif kind == "dense":
            x = x @ params[f"{name}_kernel"] + params[f"{name}_bias"][None]
        elif kind == "conv":
            strides, padding = (op["stride"],) * 2, [tuple(p) for p in op["padding"]]
            axes = ("NHWC", "HWIO", "NHWC")
            x = jax.lax.conv_general_dilated(
                x, params[f"{name}_kernel"], strides, padding, dimension_numbers=axes
            )
            if f"{name}_bias" in params:
                x = x + channels(params[f"{name}_bias"])
        elif kind == "normalize":
            x = (x - channels(params["mean"])) / channels(params["std"])
        elif kind == "batch_norm":
            x = batch_norm(op, params, x, statistics)
        elif kind == "residual":
            body = forward(op["body"], params, x, statistics)
            x = body + forward(op["shortcut"], params, x, statistics)
        elif kind in ("max_pool", "avg_pool"):
            window, strides = (op["window"],) * 2, (op["stride"],) * 2
            if kind == "max_pool":
                x = nn.max_pool(x, window, strides)
            else:
                x = nn.pool(x, 0.0, jax.lax.add, window, strides, "VALID") / float(
                    op["window"] ** 2
                )
        elif kind == "mean":
            x = x.mean((1, 2))
        else:
            x = ACTIVATIONS[kind](x)
    return x


def batch_norm(op, params, x, statistics):
    name = op["name"]
    mean, var = params[f"{name}_mean"], params[f"{name}_var"]
    if statistics is not None:
        if name not in statistics:
            statistics[name] = x.mean((0, 1, 2)), x.var((0, 1, 2))
        mean, var = statistics[name]
    gain = params[f"{name}_scale"] * jax.lax.rsqrt(var + op["eps"])
    return (x - channels(mean)) * channels(gain) + channels(params[f"{name}_bias"])
