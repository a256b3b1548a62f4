"""Flax NNX modules as networks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.networks._linen import last
from jaxrobust.networks._modes import modes, parameters
from jaxrobust.networks._network import named_method
from jaxrobust.networks._paths import leaf_at, nested


@jax.tree_util.register_static
@dataclass(frozen=True)
class NNX:
    """A module's graph; equal for equal builds.

    Attributes:
      graph: of the module.
      parts: its parameters, random streams and other variables, whose values play no part.
      make: `make(rngs=...)` builds the module; `None` for a module that exists.
    """

    graph: Any
    parts: Any = field(compare=False)
    make: Callable[..., Any] | None = field(compare=False, default=None)

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        from flax import nnx

        if self.make is None:
            raise InputError(
                "model must be a class or a function with an argument rngs, to draw first weights; "
                "got an NNX module that has weights already"
            )
        _, params, _, rest = split(self.make(rngs=nnx.Rngs(key)))
        return plain(params), plain(rest)

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
        from flax import nnx

        weights, streams, rest = self.parts
        streams = _streams(streams, key)
        module = nnx.merge(self.graph, filled(weights, params), streams, filled(rest, state))
        module.train() if train else module.eval()
        for _, part in nnx.iter_modules(module):
            # LayerNorm has an `axis_name` too, with another meaning.
            statistics = any(isinstance(v, nnx.BatchStat) for v in vars(part).values())
            if statistics and hasattr(part, "axis_name"):
                part.axis_name = axis_name if train else None
        features = method == "features" and not callable(getattr(type(module), method, None))
        call = named_method(module, "__call__" if features or method is None else method)
        out, sown = nnx.capture(call, nnx.Intermediate)(
            images, **modes(parameters(call), train=train)
        )
        if features:
            out = out, last(nnx.to_pure_dict(sown))
        return out, (plain(split(module)[-1]) if train else state)


def made(make: Callable[..., Any]) -> NNX:
    """The network of a function `make(*, rngs)`, without drawing weights."""
    from flax import nnx

    graph, *parts = split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    return NNX(graph, tuple(parts), make)


def bound(module: Any) -> tuple[NNX, Any, Any]:
    """A module's network, parameters and state; the module stays as it is."""
    from flax import nnx

    module = nnx.clone(module)
    module.eval()  # the mode is part of the graph
    graph, params, streams, rest = split(module)
    return NNX(graph, (params, streams, rest)), plain(params), plain(rest)


def split(module: Any) -> Any:
    """Graph, parameters, random streams and the other variables."""
    from flax import nnx

    return nnx.split(module, nnx.Param, nnx.RngState, ...)


def plain(state: Any) -> dict[str, Any]:
    """The values of NNX variables as nested dicts with string keys."""
    from flax import nnx

    flat = nnx.to_flat_state(state)
    return nested((tuple(map(str, path)), variable.get_value()) for path, variable in flat)


def filled(state: Any, values: Any) -> Any:
    """NNX variables with other values, found by path."""
    from flax import nnx

    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state([(p, v.replace(leaf_at(values, map(str, p)))) for p, v in flat])


def _streams(state: Any, key: Array | None) -> Any:
    """Random streams that begin with a key. No key: a module that draws raises."""
    from flax import nnx

    found = []
    for number, (path, variable) in enumerate(nnx.to_flat_state(state)):
        value: Any = None if key is None else jax.random.fold_in(key, number)
        if key is not None and not isinstance(variable, nnx.RngKey):
            value = jax.numpy.zeros((), jax.numpy.uint32)
        found.append((path, variable.replace(value)))
    return nnx.from_flat_state(found)
