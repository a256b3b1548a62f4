"""The weights of a network in one safetensors file."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath

from jaxrobust.digests import digest_of_all
from jaxrobust.files import replacing
from jaxrobust.models import from_torch_state_dict, has_torch_names, logits_fn, to_torch_state_dict
from jaxrobust.networks import LogitsFunction

DIGEST = "sha256"  # entry of the metadata: the format has no checksum


def write_weights(path: epath.Path, network: LogitsFunction, about: Mapping[str, str]) -> None:
    """Writes weights: under PyTorch's names if the network has some, else under their own paths.

    Args:
      path: of the file, on a disk.
      network: with its weights.
      about: kept in the file's metadata.

    Raises:
      OSError: if the file cannot be written.
    """
    arrays = _named(network)
    metadata = {**about, DIGEST: _digest(arrays)}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(arrays, metadata))


def read_weights(path: epath.Path, target: LogitsFunction) -> tuple[LogitsFunction, dict[str, str]]:
    """Reads weights that `write_weights` wrote.

    Args:
      path: of the file.
      target: the network, with shapes and types in the place of weights.

    Returns:
      The network with these weights, and what the metadata of the file say.

    Raises:
      ValueError: if the file is damaged or was written by something else, or if its weights are
        those of another network.
    """
    with _damage(path):
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about, arrays = dict(header["__metadata__"]), safetensors.numpy.load(content)
        if _digest(arrays) != about.pop(DIGEST):
            raise ValueError("its weights do not have the SHA-256 in its metadata")
    module = _module(target)
    if module is not None:
        return logits_fn(module, from_torch_state_dict(arrays, module, source=str(path))), about
    return _placed(arrays, target, path), about


@contextlib.contextmanager
def _damage(path: epath.Path) -> Iterator[None]:
    """Turns what reading damaged or foreign bytes raises into one line.

    Raises:
      ValueError: where the body raised anything.
    """
    try:
        yield
    except Exception as error:  # safetensors has an exception of its own
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{path} is damaged, or not from `jaxrobust export` ({reason}); export the run again"
        ) from None


def _module(network: LogitsFunction) -> Any:
    """The module that has names in PyTorch, or `None`."""
    module = getattr(network.network, "module", None)
    return module if has_torch_names(module) else None


def _named(network: LogitsFunction) -> dict[str, np.ndarray]:
    """Name -> array of all weights; half precision as float32, which holds it exactly."""
    module = _module(network)
    if module is not None:
        variables = {"params": network.params, "batch_stats": network.state}
        found = to_torch_state_dict(jax.device_get(variables), module)
    else:
        found = {name: np.asarray(jax.device_get(a)) for name, a in _leaves(network).items()}
    small = {
        n: a.dtype.itemsize < 4 and jnp.issubdtype(a.dtype, np.floating) for n, a in found.items()
    }
    return {
        name: np.ascontiguousarray(found[name].astype(np.float32) if small[name] else found[name])
        for name in sorted(found)
    }


def _tree(network: LogitsFunction) -> dict[str, Any]:
    return {"params": network.params, "state": network.state}


def _name(path: Any) -> str:
    return "/".join(str(entry.key) for entry in path)


def _leaves(network: LogitsFunction) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(_tree(network))
    return {_name(path): leaf for path, leaf in found}


def _placed(arrays: Mapping[str, np.ndarray], target: LogitsFunction, path: Any) -> LogitsFunction:
    """The arrays in the place of the target's leaves."""
    held = {name: array.shape for name, array in arrays.items()}
    wanted = {name: tuple(leaf.shape) for name, leaf in _leaves(target).items()}
    differing = sorted(n for n in held.keys() | wanted.keys() if held.get(n) != wanted.get(n))
    if differing:
        raise ValueError(
            f"{path} holds another network than its config.json: {differing[0]} differs"
        )
    tree = jax.tree_util.tree_map_with_path(
        lambda at, leaf: jnp.asarray(arrays[_name(at)], leaf.dtype), _tree(target)
    )
    return LogitsFunction(tree["params"], tree["state"], target.network)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    return digest_of_all(arrays[name] for name in sorted(arrays))
