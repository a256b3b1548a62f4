"""Whole mixed classifiers of RobustBench, taken apart."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxrobust.models._torch_import import from_torch_state_dict

# What the parts are called in Adaptive Smoothing's and in MixedNUTS' composites.
_STD = ("models.0.", "std_model.")
_ROB = ("models.1.", "rob_model.")
_MIXING = ("policy_net.", "bn.")
# Their numbers -> the arguments of `mixing.mixed`, `gamma_fn` and `mixing.mixed_nuts`.
_CONSTANTS = {
    "gamma_scale": "gamma_scale",
    "gamma_bias": "gamma_bias",
    "alpha_scale": "alpha_scale",
    "alpha_bias": "alpha_bias",
    "std_scale": "std_scale",
    "rob_scale": "rob_scale",
    "_alpha": "alpha",
    "_alpha_diffable": "surrogate_alpha",
    "rob_map.scale": "s",
    "rob_map.power": "p",
    "rob_map.clamp_bias": "c",
}
# The constructor's value of gamma, which is not used; the one-hot of the accurate base.
_IGNORED = ("gamma", "std_map.")


class TorchMixed(NamedTuple):
    """A mixed classifier's parts.

    Attributes:
      std: variables of the accurate base.
      rob: variables of the robust base.
      mixing: variables of the mixing network, or None.
      constants: scales, ranges and weights, by the names of our arguments; without those that the
        file has not.
    """

    std: dict[str, Any]
    rob: dict[str, Any]
    mixing: dict[str, Any] | None
    constants: dict[str, float]


def from_torch_mixed(
    state_dict: Mapping[str, np.ndarray],
    *,
    std: nn.Module,
    rob: nn.Module,
    mixing: nn.Module | None = None,
    source: str = "state_dict",
) -> TorchMixed:
    """The parts of a mixed classifier from RobustBench's state dict of the whole.

    The authors publish the parts in files of their own, which `load_torch_checkpoint` reads one by
    one; this takes what a built composite saves.

    Args:
      state_dict: PyTorch's names -> arrays: `models.0.*`, `models.1.*`, `policy_net.*` and `bn.*`
        (Adaptive Smoothing), or `std_model.*` and `rob_model.*` (MixedNUTS), and numbers.
      std: the accurate base, such as `bit_resnet()`.
      rob: the robust base.
      mixing: the mixing network, for Adaptive Smoothing.
      source: what errors call the weights.

    Returns:
      `TorchMixed`.

    Raises:
      ValueError: if a key belongs to no part, or a part does not fit its network.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import models
      >>> try:
      ...     models.from_torch_mixed({"head.weight": np.zeros(3)}, std=models.bit_resnet(),
      ...         rob=models.wide_resnet())
      ... except ValueError as error:
      ...     print(error)
      state_dict: not part of a mixed classifier: head.weight
    """
    parts: dict[str, dict[str, Any]] = {"std": {}, "rob": {}, "mixing": {}}
    constants, strangers = {}, []
    for key, value in state_dict.items():
        if key.startswith(_STD + _ROB):
            prefix = next(p for p in _STD + _ROB if key.startswith(p))
            parts["std" if prefix in _STD else "rob"][key.removeprefix(prefix)] = value
        elif key.startswith(_MIXING):
            parts["mixing"][key] = value
        elif key in _CONSTANTS:
            constants[_CONSTANTS[key]] = float(np.asarray(value))
        elif not key.startswith(_IGNORED):
            strangers.append(key)
    if strangers:
        raise ValueError(f"{source}: not part of a mixed classifier: {', '.join(strangers)}")
    if (mixing is None) != (not parts["mixing"]):
        has = "has" if parts["mixing"] else "has no"
        raise ValueError(f"{source}: the file {has} mixing network, mixing is {mixing!r}")
    variables = {
        name: from_torch_state_dict(parts[name], model, source=f"{source}, {name}")
        for name, model in (("std", std), ("rob", rob), ("mixing", mixing))
        if model is not None
    }
    return TorchMixed(variables["std"], variables["rob"], variables.get("mixing"), constants)
