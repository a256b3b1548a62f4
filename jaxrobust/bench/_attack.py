"""What an attack costs beyond the passes of the model that it is made of."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust import models
from jaxrobust.attacks import apgd, ddn, fab, fmn, pdpgd, sigma_zero, square
from jaxrobust.bench._passes import forward_passes, gradient_passes
from jaxrobust.bench._timing import least_times
from jaxrobust.convolutions import compiler_options, fast_on_cpu


class AttackRow(NamedTuple):
    """One attack on one network.

    Attributes:
      attack: name and norm.
      compile_seconds: tracing and compilation.
      seconds: of one run, the least of the repeats.
      forwards: forward passes of the batch without a gradient.
      gradients: forward and backward passes of the batch.
      passes_seconds: what those passes cost by themselves, measured in the same run.
      ratio: `seconds / passes_seconds`.
    """

    attack: str
    compile_seconds: float
    seconds: float
    forwards: int
    gradients: int
    passes_seconds: float
    ratio: float


def attack_table(
    *, width: int = 16, batch_size: int = 32, steps: int = 10, queries: int = 100, repeats: int = 3
) -> list[AttackRow]:
    """Times APGD, FAB-T, Square and minimum-norm attacks on a PreActResNet-18 at 32 x 32 x 3.

    The model's own passes are measured in a compiled loop as long as the attack's, with the same
    convolutions, in turn with the attacks; the least time of each counts.

    Args:
      width: channels of the first stage.
      batch_size: images per pass.
      steps: iterations of all but Square, at least 2.
      queries: of Square.
      repeats: of each measurement.

    Returns:
      A row per attack and norm.
    """
    key = jax.random.key(0)
    model = models.preact_resnet18(width=width)
    images = jax.random.uniform(key, (batch_size, 32, 32, 3))
    variables = jax.jit(partial(model.init, train=False))(key, images[:1])
    logits_fn = models.logits_fn(model, variables)
    logits = jax.jit(lambda f, x: f(x))(logits_fn, images)
    labels = jnp.argmax(logits, -1).astype(jnp.int32)
    targets = jnp.argsort(-logits, axis=-1)[:, 1].astype(jnp.int32)

    programs: dict[str, tuple[Callable, int, int]] = {
        "forward": (_forward_loop(queries), queries, 0),
        "gradient": (_gradient_loop(steps), 0, steps),
    }
    for norm, eps in (("linf", 1e-6), ("l2", 1e-5), ("l1", 1e-4)):
        options: dict[str, Any] = {"norm": norm, "eps": eps}
        programs[f"apgd-ce {norm}"] = (_attack(apgd, steps=steps, **options), 0, steps + 1)
        programs[f"apgd-t {norm}"] = (
            _attack(apgd, steps=steps, loss="dlr_targeted", targeted=True, **options),
            0,
            steps + 1,
        )
        programs[f"fab-t {norm}"] = (
            _attack(fab, steps=steps, targeted=True, **options),
            steps,
            steps,
        )
        programs[f"square {norm}"] = (_attack(square, queries=queries, **options), queries + 1, 0)
    nearest: dict[str, tuple[Callable, dict[str, Any]]] = {
        "fmn linf": (fmn, {"norm": "linf"}),
        "fmn l0": (fmn, {"norm": "l0"}),
        "ddn l2": (ddn, {}),
        "pdpgd l1": (pdpgd, {"norm": "l1"}),
        "sigma-zero l0": (sigma_zero, {}),
    }
    for name, (attack, options) in nearest.items():
        programs[name] = (_attack(attack, steps=steps, **options), 0, steps)
    arguments = (logits_fn, key, images, labels, targets)
    compiled, compile_seconds = {}, {}
    for name, (program, _, _) in programs.items():
        started = time.perf_counter()
        compiled[name] = jax.jit(program).lower(*arguments).compile(compiler_options())
        compile_seconds[name] = time.perf_counter() - started
    calls = {name: partial(program, *arguments) for name, program in compiled.items()}
    seconds = least_times(calls, repeats)
    per_forward, per_gradient = seconds["forward"] / queries, seconds["gradient"] / steps
    rows = []
    for name, (_, forwards, gradients) in list(programs.items())[2:]:
        passes = forwards * per_forward + gradients * per_gradient
        ratio = seconds[name] / passes
        rows.append(
            AttackRow(
                name, compile_seconds[name], seconds[name], forwards, gradients, passes, ratio
            )
        )
    return rows


def _attack(attack: Callable, *, targeted: bool = False, **options: Any) -> Callable:
    def run(logits_fn: Any, key: Array, images: Array, labels: Array, targets: Array) -> Any:
        chosen = {"targets": targets} if targeted else {}
        found = attack(logits_fn, key, images, labels, **chosen, **options)
        return found.images, found.success, found.loss

    return run


def _gradient_loop(steps: int) -> Callable:
    def run(logits_fn: Any, key: Array, images: Array, labels: Array, targets: Array) -> Array:
        return gradient_passes(fast_on_cpu(lambda x: logits_fn(x)), images, labels, steps)

    return run


def _forward_loop(queries: int) -> Callable:
    def run(logits_fn: Any, key: Array, images: Array, labels: Array, targets: Array) -> Array:
        return forward_passes(fast_on_cpu(lambda x: logits_fn(x)), images, queries)

    return run
