"""What a train step costs beyond the passes of the network that it is made of."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxrobust import models, objectives, threats
from jaxrobust.bench._passes import forward_passes, gradient_passes
from jaxrobust.bench._timing import least_times
from jaxrobust.convolutions import compiler_options, fast_on_cpu
from jaxrobust.devices import device_mesh
from jaxrobust.losses import cross_entropy
from jaxrobust.networks import network
from jaxrobust.training import StepSettings, TrainState, make_train_step

# What the attack of an objective runs besides its steps, and how many attacks there are.
CLEAN_FORWARDS = {"trades": 1, "score": 1, "distance_trades": 1, "gair_trades": 1}
ATTACKS = {"gair_trades": 2, "standard": 0}


class StepRow(NamedTuple):
    """One objective on one network.

    Attributes:
      objective: its name.
      compile_seconds: tracing, lowering and compilation of the whole step.
      seconds: of one step, the least of the repeats.
      attack_passes: forward and input-gradient passes of its attacks.
      attack_seconds: of those passes by themselves, measured in a loop as long, in the same run.
      forwards: forward passes without a gradient.
      forward_seconds: of those.
      outer_passes: forward and backward passes to the parameters, in training mode.
      outer_seconds: of those and the optimizer, measured in the same run.
      ratio: `seconds` over the sum of the parts.
      temporary_mib: temporary memory of the compiled step.
    """

    objective: str
    compile_seconds: float
    seconds: float
    attack_passes: int
    attack_seconds: float
    forwards: int
    forward_seconds: float
    outer_passes: int
    outer_seconds: float
    ratio: float
    temporary_mib: float


class Setting(NamedTuple):
    """A network with variables and a batch."""

    model: Any
    variables: Any
    images: Array
    labels: Array


def setting(model: str, *, width: int | None, batch_size: int, size: int = 32) -> Setting:
    """A network of `jaxrobust.models` and a batch of random images.

    Args:
      model: name of the network.
      width: its width; default the network's own.
      batch_size: images.
      size: height and width of the images.

    Returns:
      `Setting`.

    Raises:
      ValueError: if there is no such network, or it has no width.
    """
    make = getattr(models, model, None)
    if make is None:
        raise ValueError(f"model {model!r} is unknown; see `jaxrobust list model`")
    try:
        network = make() if width is None else make(width=width)
    except TypeError:
        raise ValueError(f"model {model!r} has no width") from None
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), dtype=np.uint8)
    variables = jax.jit(partial(network.init, train=False))(
        jax.random.key(0), jnp.zeros((1, size, size, 3))
    )
    labels = rng.integers(0, 10, batch_size).astype(np.int32)
    return Setting(network, variables, jnp.asarray(images), jnp.asarray(labels))


def step_table(
    names: Sequence[str] = ("trades",),
    *,
    model: str = "preact_resnet18",
    width: int | None = 16,
    batch_size: int = 32,
    steps: int = 10,
    repeats: int = 3,
) -> list[StepRow]:
    """Times train steps against the passes that they consist of, all in turn in one run.

    Args:
      names: objectives of `jaxrobust.objectives`.
      model: network of `jaxrobust.models`, for images of 32 x 32 x 3.
      width: of the network; `None` for its own.
      batch_size: images per step.
      steps: attack steps.
      repeats: of each measurement; the least time counts.

    Returns:
      A row per objective.

    Raises:
      ValueError: if a name is unknown.
    """
    bench = setting(model, width=width, batch_size=batch_size)
    made = {name: objective_of(name, steps) for name in names}
    programs, compile_seconds, memory = {}, {}, {}
    for name, objective in made.items():
        run, state = step_program(bench, objective)
        started = time.perf_counter()
        compiled = run.lower(state).compile(compiler_options())
        compile_seconds[name] = time.perf_counter() - started
        memory[name] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        programs[name] = chained(compiled, state)
        mode = objective.attack_statistics
        programs[f"forward {mode}"] = _compiled(_forwards(bench, mode, steps))
        programs[f"gradient {mode}"] = _compiled(_gradients(bench, mode, steps))
        count = len(objective.passes)
        outer, state = _outer_program(bench, count)
        programs[f"outer {count}"] = chained(outer.lower(state).compile(compiler_options()), state)
    seconds = least_times(programs, repeats)
    rows = []
    for name, objective in made.items():
        attack_passes = steps * ATTACKS.get(name, 1)
        forwards, outer_passes = CLEAN_FORWARDS.get(name, 0), len(objective.passes)
        mode = objective.attack_statistics
        attack = attack_passes * seconds[f"gradient {mode}"] / steps
        forward = forwards * seconds[f"forward {mode}"] / steps
        outer_seconds = seconds[f"outer {outer_passes}"]
        rows.append(
            StepRow(
                name,
                compile_seconds[name],
                seconds[name],
                attack_passes,
                attack,
                forwards,
                forward,
                outer_passes,
                outer_seconds,
                seconds[name] / (attack + forward + outer_seconds),
                memory[name],
            )
        )
    return rows


def objective_of(name: str, steps: int) -> Any:
    make = getattr(objectives, name, None)
    if make is None or not hasattr(make, "outer"):
        raise ValueError(f"objective {name!r} is unknown; see `jaxrobust list objective`")
    return make() if name == "standard" else make(steps=steps)


def _state(bench: Setting, optimizer: optax.GradientTransformation) -> TrainState:
    params = jax.tree.map(jnp.copy, bench.variables["params"])
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.copy, bench.variables.get("batch_stats", {})),
        opt_state=optimizer.init(params),
        ema_params=None,
        key=jax.random.key_data(jax.random.key(1)),
    )


def step_program(bench: Setting, objective: Any, transform: Any = None) -> tuple[Any, TrainState]:
    """The real train step on one device, as a function of its state."""
    optimizer = optax.sgd(1e-4, momentum=0.9)
    settings, trained = StepSettings(optimizer, transform=transform), network(bench.model)
    step = make_train_step(settings, device_mesh(jax.devices()[:1]))
    order = jnp.arange(len(bench.labels), dtype=jnp.int32)[None]

    def run(state: TrainState) -> tuple[TrainState, Any]:
        threat = threats.linf(8 / 255)
        return step(state, bench.images, bench.labels, order, objective, threat, trained)

    return jax.jit(run, donate_argnums=0), _state(bench, optimizer)


def _outer_program(bench: Setting, passes: int) -> tuple[Any, TrainState]:
    """Passes with their gradient, and the optimizer: a step without its attack."""
    optimizer = optax.sgd(1e-4, momentum=0.9)

    def run(state: TrainState) -> tuple[TrainState, Array]:
        def loss_fn(params: Any) -> tuple[Array, Any]:
            statistics, total = state.batch_stats, jnp.zeros(())
            for number in range(passes):  # different images, or one pass would serve all
                images = bench.images.astype(jnp.float32) / (255 + number)
                logits, after = bench.model.apply(
                    {"params": params, "batch_stats": statistics},
                    images,
                    train=True,
                    mutable=["batch_stats"],
                )
                statistics = after.get("batch_stats", statistics)
                total += jnp.mean(cross_entropy(logits, bench.labels))
            return total, statistics

        (loss, statistics), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, batch_stats=statistics, opt_state=opt_state), loss

    return jax.jit(run, donate_argnums=0), _state(bench, optimizer)


def chained(compiled: Any, state: Any) -> Callable[[], Any]:
    """Calls that hand the donated state on to the next."""
    box = [state]

    def call() -> Any:
        box[0], metrics = compiled(box[0])
        return box[0], metrics

    return call


def _logits_fn(bench: Setting, variables: Any, mode: str) -> Callable[[Array], Array]:
    if mode == "running":
        return fast_on_cpu(lambda x: bench.model.apply(variables, x, train=False))
    return fast_on_cpu(
        lambda x: bench.model.apply(variables, x, train=True, mutable=["batch_stats"])[0]
    )


def _forwards(bench: Setting, mode: str, steps: int) -> tuple[Callable, Any]:
    def run(variables: Any) -> Array:
        images = bench.images.astype(jnp.float32) / 255
        return forward_passes(_logits_fn(bench, variables, mode), images, steps)

    return run, bench.variables


def _gradients(bench: Setting, mode: str, steps: int) -> tuple[Callable, Any]:
    def run(variables: Any) -> Array:
        images = bench.images.astype(jnp.float32) / 255
        return gradient_passes(_logits_fn(bench, variables, mode), images, bench.labels, steps)

    return run, bench.variables


def _compiled(program: tuple[Callable, Any]) -> Callable[[], Any]:
    run, argument = program
    return partial(jax.jit(run).lower(argument).compile(compiler_options()), argument)
