"""The programs whose compilation is measured, in the forms that they can be written in."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from jaxrobust import models, networks, objectives, threats
from jaxrobust.attacks import apgd, pgd
from jaxrobust.devices import AXIS
from jaxrobust.evaluation import protocol
from jaxrobust.training import StepSettings, TrainState, make_train_step, share

PROGRAMS = ("train step", "pgd", "apgd", "autoattack")
FORMS = {
    "eager": "operation by operation, nothing compiled as a whole (`jax.disable_jit`)",
    "rolled": "the library's default: `jax.jit`, the attack's loop and no other rolled",
    "unrolled": "the attack's loop unrolled",
    "scanned": "also the equal blocks of a stage as a loop",
    "stock": "JAX's own derivatives of convolutions instead of `fast_on_cpu`",
}
EPS = 8 / 255


class Case(NamedTuple):
    """One program in one form.

    Attributes:
      program: "train step" (TRADES), "pgd", "apgd" (cross-entropy), or "autoattack" (the programs
        of the standard version for one batch shape: APGD-CE, APGD-T, FAB-T and Square).
      form: a key of `FORMS`.
      steps: of the attack; queries of Square.
      model: "wide_resnet" or "preact_resnet18".
      depth: of the WideResNet.
      width: of the network, as its factory counts it.
      batch_size: images.
      size: height and width of the images.
    """

    program: str
    form: str = "rolled"
    steps: int = 10
    model: str = "wide_resnet"
    depth: int = 16
    width: int = 1
    batch_size: int = 8
    size: int = 32


def network_name(case: dict[str, Any]) -> str:
    """WRN-28-10, or PreActResNet-18 with its width, from the fields of a case."""
    if case["model"] == "wide_resnet":
        return f"WRN-{case['depth']}-{case['width']}"
    return f"PreActResNet-18, width {case['width']}"


class Part(NamedTuple):
    """A function of flat arrays, as everything that compiles, exports and calls it takes it.

    Attributes:
      name: of the part of the program.
      function: arrays -> arrays; jitted.
      arguments: the arrays, or their shapes.
      values: from the results, the numbers that all forms must agree on.
    """

    name: str
    function: Any
    arguments: tuple[Any, ...]
    values: Callable[[Sequence[Any]], list[float]]


def checked(case: Case) -> Case:
    """The case, if it can be built.

    Raises:
      ValueError: if the program, form, network or their combination does not exist.
    """
    if case.program not in PROGRAMS:
        raise ValueError(f"program {case.program!r} is unknown; choose {', '.join(PROGRAMS)}")
    if case.form not in FORMS:
        raise ValueError(f"form {case.form!r} is unknown; choose {', '.join(FORMS)}")
    if case.model not in ("wide_resnet", "preact_resnet18"):
        raise ValueError(f"model must be wide_resnet or preact_resnet18, got {case.model!r}")
    if case.form == "scanned" and case.model != "wide_resnet":
        raise ValueError(f"only wide_resnet has scanned blocks, got {case.model!r}")
    if case.form == "unrolled" and case.program == "autoattack":
        raise ValueError("autoattack has no unrolled form; its APGD has: choose the program apgd")
    network(case)
    return case


def network(case: Case) -> Any:
    """The network of a case."""
    if case.model == "preact_resnet18":
        return models.preact_resnet18(width=case.width)
    return models.wide_resnet(depth=case.depth, width=case.width, scan=case.form == "scanned")


def parts_of(case: Case, mesh: Mesh, place: Callable[[Any, bool], Any]) -> list[Part]:
    """The programs of a case.

    Args:
      case: which.
      mesh: the devices of the train step.
      place: (tree of NumPy arrays, whether they are split over the devices) -> arguments.

    Returns:
      One part, or the four of AutoAttack.
    """
    model = network(case)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (case.batch_size, case.size, case.size, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, case.batch_size).astype(np.int32)
    variables = _variables(model, case.size)
    if case.program == "train step":
        return [_train_step(case, model, mesh, place, (variables, images, labels))]
    shown = images.astype(np.float32) / np.float32(255)
    keys = np.stack([np.arange(case.batch_size), np.zeros(case.batch_size)], 1).astype(np.uint32)
    batch = place((keys, shown, labels), True)
    weights = place(variables, False)
    if case.program == "autoattack":
        steps = {"steps": case.steps, "queries": case.steps}
        plan = protocol("standard", threat=threats.linf(EPS), classes=10, **steps)  # type: ignore[arg-type]
        items = {item.name: item for item in plan.items}.values()
        return [_batch_program(model, item, (weights, *batch)) for item in items]
    unroll = case.steps if case.form == "unrolled" else 1

    def attack(variables: Any, keys: Array, images: Array, labels: Array) -> Any:
        logits_fn, keys = models.logits_fn(model, variables), jax.random.wrap_key_data(keys)
        arguments = (logits_fn, keys, images, labels)
        options: dict[str, Any] = {"steps": case.steps, "unroll": unroll}
        if case.program == "pgd":
            threat, size = threats.linf(EPS), 2.5 * EPS / case.steps
            found = pgd(*arguments, threat=threat, step_size=size, **options)
        else:
            found = apgd(*arguments, norm="linf", eps=EPS, **options)
        return found.loss, found.images

    return [_part(case.program, attack, (weights, *batch), lambda out: [float(np.mean(out[0]))])]


def _batch_program(model: Any, item: Any, arguments: tuple) -> Part:
    """A program that `evaluation.autoattack` runs on a batch."""

    def attack(variables: Any, keys: Array, images: Array, labels: Array) -> Any:
        logits_fn, keys = models.logits_fn(model, variables), jax.random.wrap_key_data(keys)
        targets = ((labels + 1) % 10,) if item.rank else ()
        return item.attack(logits_fn, keys, images, labels, *targets).images - images

    return _part(item.name, attack, arguments, lambda out: [float(np.abs(out[0]).mean())])


def _train_step(
    case: Case, model: Any, mesh: Mesh, place: Callable[[Any, bool], Any], data: Any
) -> Part:
    """The real train step with TRADES; as in training, its arrays lie on all devices."""
    variables, images, labels = data
    optimizer = optax.sgd(0.1, momentum=0.9)
    params = variables["params"]
    # NumPy arrays, which are placed below.
    state: Any = TrainState(
        step=np.zeros((), np.int32),  # type: ignore[arg-type]
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=jax.tree.map(
            lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(optimizer.init, params)
        ),
        ema_params=None,
        key=np.array([0, 1], np.uint32),  # type: ignore[arg-type]
    )
    if case.form == "unrolled":  # the only loop of the step; this process measures nothing else
        jax.lax.fori_loop = partial(_unrolled, jax.lax.fori_loop)
    settings, trained = StepSettings(optimizer), networks.network(model)
    step = _eager_step(settings) if case.form == "eager" else make_train_step(settings, mesh)
    objective = objectives.trades(steps=case.steps)
    order = np.arange(case.batch_size, dtype=np.int32)[None]

    def run(state: TrainState, images: Array, labels: Array, order: Array) -> Any:
        after, metrics = step(state, images, labels, order, objective, threats.linf(EPS), trained)
        change = jax.tree.map(jnp.subtract, after.params, state.params)
        moved = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(change)))
        return (metrics["loss"], metrics["boundary_loss"], moved), after

    arguments = place((state, images, labels, order), False)
    return _part("train step", run, arguments, lambda out: [float(value) for value in out[:3]])


def _unrolled(loop: Callable, *arguments: Any, **options: Any) -> Any:
    return loop(*arguments, **{**options, "unroll": True})


def _eager_step(settings: StepSettings) -> Callable:
    """One device as an axis of `vmap`: `shard_map` compiles every operation anew, each time."""

    def step(*arguments: Any) -> Any:
        mapped = jax.vmap(
            lambda _: share(settings, *arguments), axis_name=AXIS, axis_size=1, out_axes=None
        )
        return mapped(jnp.zeros(1))

    return step


def _part(name: str, function: Callable, arguments: tuple, values: Any) -> Part:
    leaves, structure = jax.tree.flatten(arguments)

    def flat(*leaves: Any) -> tuple[Any, ...]:
        return tuple(jax.tree.leaves(function(*jax.tree.unflatten(structure, leaves))))

    return Part(name, jax.jit(flat), tuple(leaves), values)


def _variables(model: Any, size: int) -> Any:
    """Variables of the network's shapes, He-scaled, without compiling its initialisation."""
    zeros = jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros, train=False))
    rng = np.random.default_rng(1)

    def fill(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        if name == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (scale * rng.standard_normal(leaf.shape, np.float32)).astype(np.float32)
        return np.full(leaf.shape, name in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)
