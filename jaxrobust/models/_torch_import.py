"""PyTorch weights into the variables of our networks; nothing that a file pickles is run."""

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.inputs import as_array
from jaxrobust.models._mixing_network import MixingNetwork
from jaxrobust.models._torch_file import read_torch_file
from jaxrobust.models._torch_names import Layout, layouts

# Where files keep the weights, the first that is there wins: averaged before raw, and of
# {'last', 'best'} the last, as RobustBench reads it.
_ENTRIES = (
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "last",
    "model_state_dict",
    "state_dict",
    "model",
    "net",
    "best",
)
# Wrappers' names before a key: data parallelism, an attribute, torch.compile, a Sequential whose
# first member normalises (then it holds `0.mean` and `0.std`, or nothing).
_PREFIX = re.compile(r"^((module|model|policy_net|_orig_mod|[01])\.)+")
# Not part of the network that is evaluated: TRADES' unused branch, counters, the copy of the
# network inside the robustness library's attacker.
_IGNORED = re.compile(r"(^sub_block1\.|(^|\.)num_batches_tracked$|^attacker\.|^n_averaged$)")
_NORMALISATION = {
    "mu": "mean",
    "mean": "mean",
    "normalizer.new_mean": "mean",
    "sigma": "std",
    "std": "std",
    "normalizer.new_std": "std",
}


def load_torch_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, *, entry: str | None = None
) -> dict[str, Any]:
    """Reads published PyTorch weights into the variables of a network.

    The file is safetensors or what `torch.save` wrote, in today's format or the old one. Nothing
    in it is executed: PyTorch reads it with `weights_only=True` where it is installed, else a
    reader that knows tensors and containers only. Unused parts (`sub_block1`, counters, an
    attacker's copy of the network) are skipped; everything else must fit exactly.

    Args:
      path: the file.
      model: one of this package's networks, built as the weights were trained: the file cannot
        tell an activation, a padding or what a shortcut reads. `published` builds it for the
        entries of RobustBench. If the file has a mean and a standard deviation of the images,
        they must be the network's.
      entry: name of the part of the file that holds the weights; default: the usual names,
        averaged weights before raw ones.

    Returns:
      The variables `{"params": ..., "batch_stats": ...}`, float32, for `model.apply`.

    Raises:
      ValueError: if there is no such file, if it is damaged or asks for anything but tensors and
        containers, or if it does not fit: every missing, unexpected and misshapen key is named.

    Example:
      >>> import pathlib, tempfile
      >>> from jaxrobust import models
      >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.pt")
      >>> path.write_bytes(b"not weights") > 0
      True
      >>> models.load_torch_checkpoint(path, models.wide_resnet())  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ValueError: ...weights.pt: damaged, or not a file of weights (...)
    """
    weights = read_torch_file(path, lambda tree, is_tensor: _select(tree, is_tensor, entry, path))
    return from_torch_state_dict(weights, model, source=str(path))


def read_torch_checkpoint(path: str | os.PathLike[str]) -> Any:
    """All that a file of weights holds, tensors as NumPy arrays; reads as `load_torch_checkpoint`.

    Args:
      path: the file, safetensors or written by `torch.save`.

    Returns:
      Dicts, lists and plain values as in the file; usually a dict of arrays, or of such dicts.

    Raises:
      ValueError: if there is no such file, or it is damaged or asks for anything else.

    Example:
      >>> import json, pathlib, tempfile, numpy as np
      >>> from jaxrobust import models
      >>> header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
      >>> text, data = json.dumps(header).encode(), np.float32([1, 2]).tobytes()
      >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.safetensors")
      >>> path.write_bytes(len(text).to_bytes(8, "little") + text + data) > 0
      True
      >>> models.read_torch_checkpoint(path)["w"].tolist()
      [1.0, 2.0]
    """
    return read_torch_file(path, lambda tree, is_tensor: tree)


def from_torch_state_dict(
    state_dict: Mapping[str, np.ndarray], model: nn.Module, *, source: str = "state_dict"
) -> dict[str, Any]:
    """The variables of a network from a PyTorch state dict of NumPy arrays.

    Args:
      state_dict: PyTorch's names -> arrays in PyTorch's layouts (kernels `[out, in, h, w]`).
      model: the network, see `load_torch_checkpoint`.
      source: what errors call the weights.

    Returns:
      The variables `{"params": ..., "batch_stats": ...}`, float32, for `model.apply`.

    Raises:
      ValueError: if they do not fit: every missing, unexpected and misshapen key is named, and
        every one that is not of finite floating-point numbers.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import models
      >>> try:
      ...     models.from_torch_state_dict({"fc.bias": np.zeros(3)}, models.wide_resnet(depth=10))
      ... except ValueError as error:
      ...     print(str(error)[-42:])
      1 misshapen: fc.bias (3,) instead of (10,)
    """
    weights = _stripped(state_dict, source)
    _check_normalisation(weights, model, source)
    weights = {key: value for key, value in weights.items() if key not in _NORMALISATION}
    shapes = _shapes(model, weights)
    candidates = [(layout, _expected(layout, shapes)) for layout in layouts(model)]
    # The layout whose names the file shares; for a foreign file, any will do for the error.
    layout, expected = max(candidates, key=lambda pair: len(weights.keys() & pair[1].keys()))
    _check_fit(weights, expected, source)
    variables = {
        path: jnp.asarray(_flax_layout(weights[key], path, layout), jnp.float32)
        for key, (path, _) in expected.items()
    }
    return flax.traverse_util.unflatten_dict(variables)


def _select(tree: Any, is_tensor: Callable[[Any], bool], entry: str | None, source: Any) -> Any:
    """The dict of the tree that holds the weights."""
    for _ in range(4):  # as deep as files nest them
        parts = tree if isinstance(tree, dict) else {}
        dicts = [k for k, v in parts.items() if isinstance(v, dict) and not is_tensor(v)]
        if entry is not None and entry not in dicts:
            raise ValueError(f"{source}: entry must be one of {dicts}, not {entry!r}")
        found = entry or next((name for name in _ENTRIES if name in dicts), None)
        if found is None:
            break
        if found == "model" and "bn" in dicts:  # a mixing network and its output's normalisation
            return {**parts["model"], **{f"bn.{k}": v for k, v in parts["bn"].items()}}
        tree, entry = parts[found], None
    if any(map(is_tensor, parts.values())):
        return parts
    held = f"a dict of {list(parts)}" if parts else f"a {type(tree).__name__}"
    raise ValueError(f"{source}: no weights at the usual places; it holds {held}")


def _stripped(state_dict: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Keys without wrappers' prefixes, and only those of the network."""
    weights: dict[str, Any] = {}
    for key, value in state_dict.items():
        short = _PREFIX.sub("", str(key))
        if _IGNORED.search(short):
            continue
        if short in weights:
            raise ValueError(f"{source}: two keys stand for {short}, one of them is {key}")
        weights[short] = value
    return weights


def _check_normalisation(weights: Mapping[str, Any], model: nn.Module, source: str) -> None:
    """Networks normalise inside, by their own constants: a file that has some must agree."""
    for key, attribute in _NORMALISATION.items():
        if key in weights:
            theirs = np.ravel(weights[key]).astype(np.float64)
            ours = np.ravel(getattr(model, attribute))
            comparable = theirs.size == ours.size or 1 in (theirs.size, ours.size)
            if not (comparable and np.allclose(theirs, ours, rtol=1e-6, atol=1e-7)):
                values = tuple(round(float(value), 7) for value in theirs)
                raise ValueError(
                    f"{source}: {key} is {values}, the network's {attribute} is "
                    f"{tuple(ours.tolist())}: build the network with {attribute}={values}"
                )


def _shapes(model: nn.Module, weights: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    """Our path -> shape of everything that the network needs, for the file's kind of images."""
    if isinstance(model, MixingNetwork):
        shapes = jax.eval_shape(model.init, jax.random.key(0), *model.example_inputs())
        return flax.traverse_util.flatten_dict(shapes)
    size, channels = layouts(model)[0].image_size, 3
    for layout in layouts(model):
        kernel = np.shape(weights.get(f"{layout.names[layout.first]}.weight", ()))
        channels = kernel[1] if len(kernel) == 4 else channels
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    return flax.traverse_util.flatten_dict(shapes)


def _expected(
    layout: Layout, shapes: Mapping[tuple[str, ...], Any]
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """Their key -> (our path, their shape) of everything that the network needs."""
    return {layout.key(path): (path, _torch_shape(leaf.shape)) for path, leaf in shapes.items()}


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[::-1][:2], *shape[:-2])


def _check_fit(
    weights: Mapping[str, Any],
    expected: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]],
    source: str,
) -> None:
    misshapen = [
        f"{key} {np.shape(weights[key])} instead of {shape}"
        for key, (_, shape) in expected.items()
        if key in weights and np.shape(weights[key]) != shape
    ]
    arrays = {k: np.asarray(as_array(weights[k], name=k)) for k in expected if k in weights}
    floating = {k: jnp.issubdtype(a.dtype, jnp.floating) for k, a in arrays.items()}
    problems = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "misshapen": misshapen,
        "not floating point": [
            f"{k} {arrays[k].dtype}" for k, fits in floating.items() if not fits
        ],
        "not finite": [k for k, fits in floating.items() if fits and not _finite(arrays[k])],
    }
    found = "; ".join(f"{len(k)} {what}: {', '.join(k)}" for what, k in problems.items() if k)
    if found:
        raise ValueError(f"{source}: the weights do not fit the network; {found}")


def _finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values.astype(np.float32)).all())


def _flax_layout(value: np.ndarray, path: tuple[str, ...], layout: Layout) -> np.ndarray:
    """Kernels with the output channels last; a flattening with the channels last."""
    value = np.asarray(value)
    channels = layout.flattened.get(path[-2])
    if value.ndim == 2 and channels is not None:
        side = math.isqrt(value.shape[1] // channels)
        value = value.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
        value = value.reshape(len(value), -1)
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    return value.transpose(axes[value.ndim]) if value.ndim in axes else value
