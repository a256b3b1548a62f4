"""The step of one device, run on all of them: for one run, or for several as one program."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrobust.devices import AXIS, device_mesh, replicated
from jaxrobust.networks import Network
from jaxrobust.objectives import Objective, Sizes
from jaxrobust.threats import Threat
from jaxrobust.training._state import TrainState, create_state, create_states
from jaxrobust.training._step import Metrics, StepSettings, device_step

MEMBERS = "members"
Runner = Literal["shard_map", "pmap"]
TrainStep = Callable[..., tuple[TrainState, Metrics]]
Tables = dict[str, Array]  # `[steps]` values of schedules by path


class Alone:
    """One run on all devices; its state is never stacked nor copied to the host.

    Args:
      devices: the devices, of all processes; `None` for all.
      runner: of the step.
    """

    every_epoch = True  # is saved

    def __init__(self, devices: Sequence[Any] | None, *, runner: Runner = "shard_map") -> None:
        self.mesh, self._runner = device_mesh(devices), runner
        self.splits_streams = runner == "shard_map"
        self.row: dict[str, int] = {}

    def states(self, experiments: Sequence[Any], *parts: Any, sizes: Sizes) -> TrainState:
        """The state before the first step; `parts` and `sizes` as `create_state` takes them."""
        return replicated(create_state(experiments[0], *parts, sizes=sizes), self.mesh)

    def stack(self, trees: Sequence[Any]) -> Any:
        """The one tree, on every device."""
        return replicated(trees[0], self.mesh)

    def split(self, tree: Any) -> list[Any]:
        """The tree itself."""
        return [tree]

    def parts(
        self, built: Sequence[Any], network: Network, tables: Sequence[Tables]
    ) -> tuple[Any, ...]:
        """The last arguments of the program: objective, threat and network."""
        return (*self.stack(built), network)

    def program(self, settings: StepSettings, *, streamed: bool) -> TrainStep:
        """See `make_train_step`."""
        return make_train_step(settings, self.mesh, runner=self._runner, streamed=streamed)


class Together:
    """Several runs as one program, in one process; in all trees their axis is first.

    As many devices as divide their number are set over the runs, the rest over each batch.

    Args:
      count: number of runs.
      devices: the devices; `None` for all.
      at_once: how many of a device's runs are vectorised, the others follow in a loop; `None` for
        all, on CPU (where convolutions of several kernels are slow) one.
    """

    every_epoch = False  # a save copies all states to the host, so only validated epochs are
    splits_streams = False  # a step's examples lie on every device, as a set in memory does

    def __init__(self, count: int, devices: Sequence[Any] | None, at_once: int | None) -> None:
        devices = list(device_mesh(devices).devices.flat)
        over = math.gcd(count, len(devices))
        shape, types = (over, len(devices) // over), (AxisType.Auto,) * 2
        self.mesh = jax.make_mesh(shape, (MEMBERS, AXIS), axis_types=types, devices=devices)
        self.row = {"members": count}
        self._count, self._each = count, NamedSharding(self.mesh, P(MEMBERS))
        self._at_once = at_once or (1 if devices[0].platform == "cpu" else sys.maxsize)

    def states(self, experiments: Sequence[Any], *parts: Any, sizes: Sizes) -> TrainState:
        """The states before the first step, from one program."""
        return jax.device_put(create_states(experiments, *parts, sizes=sizes), self._each)

    def stack(self, trees: Sequence[Any]) -> Any:
        """A tree per run as one tree."""
        return jax.device_put(jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees), self._each)

    def split(self, tree: Any) -> list[Any]:
        """A tree per run, on the host."""
        host = jax.device_get(tree)
        return [
            jax.tree.map(lambda leaf, n=n: np.asarray(leaf[n]), host) for n in range(self._count)
        ]

    def parts(
        self, built: Sequence[Any], network: Network, tables: Sequence[Tables]
    ) -> tuple[Any, ...]:
        """The last arguments of the program; runs have their own tables of schedules."""
        return (*self.stack(built), network, self.stack(tables))

    def program(self, settings: StepSettings, *, streamed: bool) -> TrainStep:
        """The compiled step of all runs, which also finds a streamed batch by its order."""

        def step(
            states: TrainState,
            images: Any,
            labels: Any,
            orders: Any,
            objectives: Any,
            threats: Any,
            network: Network,
            tables: Any,
        ) -> tuple[TrainState, Metrics]:
            def one(member: Any) -> tuple[TrainState, Metrics]:
                state, order, objective, threat, own = member
                now = replace(settings, schedules=(*settings.schedules, *looked_up(own)))
                return share(now, state, images, labels, order, objective, threat, network)

            members, count = (states, orders, objectives, threats, tables), self._at_once
            if count >= len(orders):
                return jax.vmap(one)(members)
            return jax.lax.map(one, members, batch_size=None if count == 1 else count)

        each = P(MEMBERS)
        sharded = jax.shard_map(
            step,
            mesh=self.mesh,
            in_specs=(each, P(), P(), each, each, each, P(), each),
            out_specs=each,
            check_vma=False,
        )
        return jax.jit(sharded, donate_argnums=0)


Group = Alone | Together


def looked_up(tables: Tables) -> list[tuple[str, Callable[[Array], Array]]]:
    """Schedules that read their values from tables.

    Args:
      tables: `[steps]` values by path.

    Returns:
      Pairs of a path and a function of the step.
    """
    return [(path, partial(jnp.take, table)) for path, table in tables.items()]


def make_train_step(
    settings: StepSettings,
    mesh: Mesh,
    *,
    runner: Runner = "shard_map",
    streamed: bool = False,
) -> TrainStep:
    """The compiled step over all devices of a mesh; the state is donated.

    Both runners map the same function over the same devices and hand out the same replicated
    state, so a run may change from one to the other at any checkpoint.

    Args:
      settings: what the step is made of.
      mesh: one axis named `AXIS`; the batch is split over it.
      runner: "shard_map", or "pmap" (which JAX only maintains).
      streamed: under "shard_map": `images` and `labels` are those of the step's batch alone, split
        over the devices, and `order` is `None`.

    Returns:
      `step(state, images, labels, order, objective, threat, network) -> (state, metrics)`:
      `images` `[n, h, w, c]` uint8 (or rows, see `StepSettings.image_shape`) and `labels` `[n]`
      are the whole training set, on every device; `order` `[steps_per_epoch, batch]` the epoch's
      indices; `objective`, `threat` and `network` pytrees whose leaves may change from step to step
      without recompilation. Metrics are scalars averaged over the global batch. The step has
      `lower`, as jitted functions do.

    Raises:
      ValueError: if there is no such runner.
    """
    if runner not in get_args(Runner):
        raise ValueError(f"runner must be one of {', '.join(get_args(Runner))}, got {runner!r}")

    def train_step(*arguments: Any) -> tuple[TrainState, Metrics]:
        return share(settings, *arguments)

    if runner == "shard_map":
        data = P(AXIS) if streamed else P()
        sharded = jax.shard_map(
            train_step,
            mesh=mesh,
            in_specs=(P(), data, data, P(), P(), P(), P()),
            out_specs=P(),
            # Gradients are averaged explicitly; the checker would sum them once more.
            check_vma=False,
        )
        return jax.jit(sharded, donate_argnums=0)
    mapped = jax.pmap(
        lambda number, *arguments: train_step(*arguments),
        axis_name=AXIS,
        in_axes=(0, *[None] * 7),
        out_axes=None,
        donate_argnums=1,
        devices=list(mesh.devices.flat),
    )
    return _NumbersFirst(mapped, mesh, np.arange(len(mesh.local_devices), dtype=np.int32))


class _NumbersFirst:
    """A function under `pmap`, or what it lowers and compiles to, with its first argument bound.

    `pmap` wants one argument that is split: a number per device, of this process where `pmap`
    itself is called, of all processes where its compiled program is.
    """

    def __init__(self, inner: Any, mesh: Mesh, numbers: Any) -> None:
        self._inner, self._mesh, self._numbers = inner, mesh, numbers

    def __call__(self, *arguments: Any) -> tuple[TrainState, Metrics]:
        return self._inner(self._numbers, *arguments)

    def lower(self, *arguments: Any) -> "_NumbersFirst":
        lowered = self._inner.lower(self._numbers, *arguments)
        return _NumbersFirst(lowered, self._mesh, self._numbers)

    def compile(self, compiler_options: dict[str, Any] | None = None) -> "_NumbersFirst":
        sharding = NamedSharding(self._mesh, P(AXIS))
        everywhere = jax.make_array_from_process_local_data(sharding, self._numbers)
        return _NumbersFirst(self._inner.compile(compiler_options), self._mesh, everywhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def share(
    settings: StepSettings,
    state: TrainState,
    images: Array,
    labels: Array,
    order: Array | None,
    objective: Objective,
    threat: Threat,
    network: Network,
) -> tuple[TrainState, Metrics]:
    """The step of one device of `AXIS` on its share of the batch: consecutive places of it.

    Without an `order` the images are this share already.

    Args:
      settings: what the step is made of.
      state: before the step.
      images: `[n, h, w, c]` uint8, or rows, see `StepSettings.image_shape`.
      labels: `[n]`.
      order: `[steps_per_epoch, batch]` the epoch's indices, or `None`.
      objective: the recipe.
      threat: that the recipe attacks in.
      network: that is trained.

    Returns:
      The state after the step, and metrics averaged over the devices.

    Raises:
      ValueError: if the batch cannot be split evenly.
    """
    devices = jax.lax.axis_size(AXIS)
    batch = len(labels) * devices if order is None else order.shape[1]
    if batch % devices:
        raise ValueError(f"batch must be a multiple of the {devices} devices, got {batch}")
    size = batch // devices
    local = jnp.arange(size, dtype=jnp.int32)
    positions = jax.lax.axis_index(AXIS) * size + local
    indices = local if order is None else order[state.step % len(order)][positions]
    batch_of = (images, labels, indices, positions)
    steps = settings.steps_per_epoch or (1 if order is None else len(order))
    return device_step(settings, AXIS, state, *batch_of, objective, threat, network, steps)
