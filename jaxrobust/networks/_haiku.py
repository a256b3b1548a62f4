"""Haiku functions as networks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import Array

from jaxrobust.networks._modes import modes, parameters
from jaxrobust.networks._network import named_method
from jaxrobust.networks._paths import like


@jax.tree_util.register_static
@dataclass(frozen=True)
class Haiku:
    """A function `forward(images, *, train, axis_name)` of Haiku modules, not yet transformed.

    It gets those of `train` (or `is_training`), `axis_name` and `method` that it takes.
    """

    forward: Callable[..., Any]

    def init(self, key: Array, images: Array) -> tuple[Any, Any]:
        return self._transformed(train=True, axis_name=None, method=None).init(key, images)

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
        transformed = self._transformed(train=train, axis_name=axis_name, method=method)
        out, after = transformed.apply(params, state, key, images)
        return out, (like(after, state) if train else state)

    def _transformed(self, *, train: bool, axis_name: str | None, method: str | None) -> Any:
        import haiku as hk

        names = parameters(self.forward)
        if method is not None and "method" not in names:
            named_method(self.forward, method)
        given = {"axis_name": axis_name if train else None, "method": method}
        options = {name: value for name, value in given.items() if name in names}
        return hk.transform_with_state(
            partial(self.forward, **options, **modes(names, train=train))
        )
