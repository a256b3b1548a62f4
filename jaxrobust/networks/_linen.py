"""Flax Linen modules as networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrobust.networks._modes import modes, parameters
from jaxrobust.networks._network import named_method

STATISTICS = "batch_stats"
SOWN = "intermediates"


@jax.tree_util.register_static
@dataclass(frozen=True)
class Linen:
    """A Linen module; its state is the content of `batch_stats`, or a dict of all collections."""

    module: Any

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        module, options = self._called("__call__", train=False)
        return split(module.init(key, images, **options))

    def apply(
        self,
        params: Any,
        state: Any,
        images: Array,
        *,
        train: bool,
        key: Array | None = None,
        axis_name: str | None = None,
        method: str | None = None,
    ) -> tuple[Any, Any]:
        """See `Network`."""
        features = method == "features" and not callable(getattr(type(self.module), method, None))
        call = "__call__" if features or method is None else method
        named_method(self.module, call)
        module, options = self._called(call, train=train, axis_name=axis_name)
        collections = state if STATISTICS in state else {STATISTICS: state}
        variables = {"params": params, **collections}
        if train:
            options["mutable"] = [*collections]
        if features:
            options["mutable"] = [*options.get("mutable", ()), SOWN]
        if key is not None:
            # Linen draws from "params" where a module asks for a stream that is not given.
            options["rngs"] = {"dropout": key, "params": jax.random.fold_in(key, 1)}
        found = module.apply(variables, images, method=call, **options)
        out, after = found if "mutable" in options else (found, {})
        after = dict(after)
        sown = after.pop(SOWN, {})
        if train:
            state = {**collections, **after}
            state = state if len(state) > 1 else state[STATISTICS]
        return ((out, last(sown)) if features else out), state

    def _called(
        self, call: str, *, train: bool, axis_name: str | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The module and the arguments of a call, with the mode in whichever of the two has it."""
        names = parameters(getattr(type(self.module), call))
        options = modes(names, train=train)
        fields = getattr(self.module, "__dataclass_fields__", {})
        changes: dict[str, Any] = {} if options else modes(fields, train=train)
        if train and "axis_name" in fields:
            changes["axis_name"] = axis_name
        return (self.module.clone(**changes) if changes else self.module), options


def split(variables: Mapping[str, Any]) -> tuple[Any, Any]:
    """Parameters and state of a module's variables."""
    collections = {name: value for name, value in variables.items() if name not in ("params", SOWN)}
    if not set(collections) - {STATISTICS}:
        return variables.get("params", {}), collections.get(STATISTICS, {})
    return variables.get("params", {}), {STATISTICS: {}, **collections}


def last(sown: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The last value of each name that a pass has sown; names within submodules by path."""
    found: dict[str, Any] = {}
    for name, value in sown.items():
        if isinstance(value, Mapping):
            found |= last(value, f"{prefix}{name}/")
        else:
            found[prefix + name] = value[-1]
    return found
