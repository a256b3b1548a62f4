"""Equinox modules as networks."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.networks._modes import parameters
from jaxrobust.networks._network import named_method
from jaxrobust.networks._paths import leaf_at, like, names_of, nested

IMAGES = "batch"  # the axis of `vmap`, as Equinox' documentation calls it


@jax.tree_util.register_static
@dataclass(frozen=True)
class Equinox:
    """A module for one image `[c, h, w]` without its arrays; equal for equal builds.

    Attributes:
      structure: of the module.
      leaves: path and kind of each leaf, and the value of those that are no arrays.
      layers: structure and paths of its `State`.
      make: `make(key=...)` builds the module; `None` for a module that exists.
    """

    structure: Any
    leaves: tuple[tuple[tuple[str, ...], str, Any], ...]
    layers: tuple[Any, tuple[tuple[str, ...], ...]]
    make: Callable[..., Any] | None = field(compare=False, default=None)

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        import equinox as eqx

        if self.make is None:
            raise InputError(
                "model must be a class or a function with an argument key, to draw first weights; "
                "got an Equinox module that has weights already"
            )
        return taken_apart(*eqx.nn.make_with_state(self.make)(key=key))[1:]

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
        import equinox as eqx

        module = self._module({"params": params, **state})
        module = _sharing(eqx.nn.inference_mode(module, value=not train), axis_name)
        call = named_method(module, method or "__call__")
        takes = parameters(call)
        # A fresh one for each pass: an `eqx.nn.State` that was used raises.
        structure, paths = self.layers
        layers = jax.tree.unflatten(structure, [leaf_at(state["layers"], p) for p in paths])

        def one(image: Array, layers: Any, key: Array | None) -> Any:
            given = {"state": layers, "key": key}
            out = call(image, **{k: v for k, v in given.items() if k in takes})
            return out if "state" in takes else (out, layers)

        keys = None if key is None else jax.random.split(key, len(images))
        axes = (0, None, None if key is None else 0)
        each = jax.vmap(one, axes, (0, None), axis_name=IMAGES)
        out, layers = each(jnp.moveaxis(images, -1, 1), layers, keys)
        if method == "features":
            out = jax.tree.map(lambda x: jnp.moveaxis(x, 1, -1) if x.ndim == 4 else x, out)
        if train and paths:
            after = nested(zip(paths, jax.tree.leaves(layers), strict=True))
            state = {**state, "layers": like(after, state["layers"])}
        return out, state

    def _module(self, arrays: dict[str, Any]) -> Any:
        leaves = [
            value if kind == "static" else leaf_at(arrays[kind], path)
            for path, kind, value in self.leaves
        ]
        return jax.tree.unflatten(self.structure, leaves)


def made(make: Callable[..., Any]) -> Equinox:
    """The network of a function `make(*, key)`, without drawing weights."""
    import equinox as eqx

    build = eqx.nn.make_with_state(make)
    module, layers = eqx.filter_eval_shape(lambda key: build(key=key), jax.random.key(0))
    return taken_apart(module, layers, make)[0]


def bound(module: Any, layers: Any = None) -> tuple[Equinox, Any, Any]:
    """A module's network, parameters and state; `layers` is what `make_with_state` returned."""
    import equinox as eqx

    if layers is None:
        module, layers = eqx.nn.make_with_state(lambda: module)()
    return taken_apart(module, layers)


def taken_apart(
    module: Any, layers: Any, make: Callable[..., Any] | None = None
) -> tuple[Equinox, Any, Any]:
    """The network, its parameters, and its state: that of its layers and arrays of integers."""
    flat, structure = jax.tree_util.tree_flatten_with_path(module)
    found = [(names_of(path), _kind(leaf), leaf) for path, leaf in flat]
    arrays = {
        wanted: nested((path, leaf) for path, kind, leaf in found if kind == wanted)
        for wanted in ("params", "constants")
    }
    held, of_layers = jax.tree_util.tree_flatten_with_path(layers)
    paths = tuple(names_of(path) for path, _ in held)
    state = {"layers": nested(zip(paths, (leaf for _, leaf in held), strict=True))}
    state |= {"constants": arrays["constants"]} if arrays["constants"] else {}
    leaves = tuple((path, kind, leaf if kind == "static" else None) for path, kind, leaf in found)
    return Equinox(structure, leaves, (of_layers, paths), make), arrays["params"], state


def _kind(leaf: Any) -> str:
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        return "static"
    return "params" if jnp.issubdtype(leaf.dtype, jnp.inexact) else "constants"


def _sharing(module: Any, axis_name: str | None) -> Any:
    """The module whose BatchNorm takes its statistics over the images, and over the axis too."""
    import equinox as eqx

    axes = IMAGES if axis_name is None else (IMAGES, axis_name)

    def changed(part: Any) -> Any:
        if not isinstance(part, eqx.nn.BatchNorm):
            return part
        new = object.__new__(type(part))
        for each in fields(part):
            object.__setattr__(new, each.name, getattr(part, each.name))
        object.__setattr__(new, "axis_name", axes)
        return new

    return jax.tree.map(changed, module, is_leaf=lambda part: isinstance(part, eqx.nn.BatchNorm))
