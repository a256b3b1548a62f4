"""What an objective carries from step to step (`objectives.WithState`), inside the step."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.networks import Network
from jaxrobust.objectives import Clock, Devices, Objective, Views
from jaxrobust.threats import Threat
from jaxrobust.training._state import TrainState


class Carried:
    """The state of an objective during one step of one device; without any, nothing.

    Args:
      objective: the recipe.
      network: that is trained.
      state: before the step.
      clock: of the step.
      key: of the step, the same on all devices.
      axis: of the devices.
    """

    def __init__(
        self,
        objective: Any,
        network: Network,
        state: TrainState,
        clock: Clock,
        key: Array,
        axis: str,
    ) -> None:
        self._objective, self._network, self._state = objective, network, state
        self._clock, self._key, self._axis = clock, key, axis
        self.has_state = hasattr(objective, "init_state")
        self._remembered: tuple[str, ...] = getattr(objective, "remembered", ())
        self._common: dict[str, Any] = {}
        self.held: Any = state.objective
        if self.has_state:
            self._check()
            self._common = self._shared()

    def _check(self) -> None:
        if self.held is None:
            raise ValueError(
                f"the train state must hold the state of {type(self._objective).__name__}: give "
                "create_state the sizes of the data, or TrainState objective=init_state(sizes)"
            )

    def _shared(self) -> dict[str, Any]:
        """What the objective is shown besides its own arrays."""
        names = getattr(self._objective, "networks", ())
        common = {name: self._evaluated(name) for name in names}
        return common | {"key": jax.random.fold_in(self._key, 7), "devices": Devices(self._axis)}

    def _evaluated(self, method: str | None) -> Any:
        """A network in evaluation mode; constant."""
        network, params, statistics = jax.lax.stop_gradient(
            (self._network, self._state.params, self._state.batch_stats)
        )
        return lambda images: network.apply(params, statistics, images, train=False, method=method)[
            0
        ]

    def begin(self, threat: Threat) -> None:
        """The objective's own change of its state before the attack."""
        change = getattr(self._objective, "begin_step", None)
        if change is not None:
            method = getattr(self._objective, "method", None)
            network, key = self._evaluated(method), jax.random.fold_in(self._key, 8)
            self.held = jax.lax.stop_gradient(change(self.held, network, key, threat, self._clock))

    def rows(self, indices: Array) -> dict[str, Array]:
        """The rows of a device's batch in what is held per example."""
        return {name: self.held[name][self._places(indices)] for name in self._remembered}

    def shown(self, rows: dict[str, Array]) -> dict[str, Any]:
        """The state as `inner` sees it, with the rows of its batch."""
        return self.without_rows() | rows

    def without_rows(self) -> dict[str, Any]:
        """The state as `outer` sees it."""
        held = self.held if self.has_state else {}
        return {k: v for k, v in held.items() if k not in self._remembered} | self._common

    def remember(self, views: Views, indices: Array) -> None:
        """Enters the new rows of all devices."""
        if not self._remembered:
            return
        places = jax.lax.all_gather(self._places(indices), self._axis, tiled=True)
        held = dict(self.held)
        for name in self._remembered:
            new = views.extras[name]
            flat = new.reshape(-1, *new.shape[2:]).astype(held[name].dtype)
            gathered = jax.lax.all_gather(flat, self._axis, tiled=True)
            held[name] = held[name].at[places].set(gathered)
        self.held = held

    def _places(self, indices: Array) -> Array:
        """Of examples: sets of several seeds lie behind each other, all of one size."""
        return indices % len(self.held[self._remembered[0]])

    def end(self, sums: Any) -> Any:
        """The state after the step, from the sums over the whole batch."""
        change = getattr(self._objective, "end_step", None)
        if change is None:
            return self.held
        return jax.lax.stop_gradient(change(self.held, sums, self._clock))


def with_state(objective: Objective, state: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """The last argument of an objective's methods, for those that take one."""
    return (state,) if hasattr(objective, "init_state") else ()


def observed(
    objective: Any, logits: dict[str, Array], batch: Any, extras: Any, state: dict[str, Any]
) -> dict[str, Array]:
    """An objective's sums over a part of the batch; constants."""
    observe = getattr(objective, "observe", None)
    if observe is None:
        return {}
    return jax.lax.stop_gradient(observe(logits, batch, extras, state))


def total_over(axis: str, sums: dict[str, Array]) -> dict[str, Array]:
    """Sums over the devices, and over the parts on the first axis."""
    parts = {name: jnp.sum(value, 0) for name, value in sums.items()}
    return jax.lax.psum(parts, axis) if parts else parts
