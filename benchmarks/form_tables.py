"""Forms of the same step: loops rolled and unrolled, with and without a random transform."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust import threats
from jaxrobust.attacks import pgd
from jaxrobust.bench import (
    Setting,
    chained,
    least_times,
    objective_of,
    setting,
    step_program,
)
from jaxrobust.convolutions import compiler_options


class LoopRow(NamedTuple):
    """PGD with its loop rolled or unrolled.

    Attributes:
      form: "rolled" or "unrolled".
      steps: attack steps.
      compile_seconds: tracing, lowering and compilation, the least of the repeats.
      seconds: of one attack, the least of the repeats; `nan` where it was only compiled.
      loss: mean loss of the adversarial images, which must agree.
    """

    form: str
    steps: int
    compile_seconds: float
    seconds: float
    loss: float


class TransformRow(NamedTuple):
    """A step of PGD training on randomly rotated and shifted images.

    Attributes:
      method: of interpolation, as in `threats.spatial`.
      seconds: of one step, the least of the repeats.
      plain_seconds: of one step without the transform, measured in turn.
      share: the part of the step that the transform takes.
    """

    method: str
    seconds: float
    plain_seconds: float
    share: float


def transform_table(
    *,
    model: str = "preact_resnet18",
    width: int | None = 16,
    batch_size: int = 32,
    steps: int = 10,
    repeats: int = 3,
) -> list[TransformRow]:
    """What a random rotation and shift of every image adds to a step of PGD training.

    Args:
      model: network of `jaxrobust.models`, for images of 32 x 32 x 3.
      width: of the network.
      batch_size: images per step.
      steps: attack steps.
      repeats: of each measurement; the least time counts.

    Returns:
      A row per method of interpolation.
    """
    bench = setting(model, width=width, batch_size=batch_size)
    methods = ("none", "bilinear", "nearest")
    programs = {}
    for method in methods:
        moved = None if method == "none" else threats.spatial(30.0, 3.0, method=method)  # type: ignore[arg-type]
        run, state = step_program(bench, objective_of("pgd_at", steps), transform=moved)
        programs[method] = chained(run.lower(state).compile(compiler_options()), state)
    seconds = least_times(programs, repeats)
    plain = seconds["none"]
    return [
        TransformRow(method, seconds[method], plain, 1 - plain / seconds[method])
        for method in methods[1:]
    ]


def loop_table(
    *,
    model: str = "preact_resnet18",
    width: int | None = 16,
    batch_size: int = 32,
    steps: Sequence[int] = (10, 40),
    repeats: int = 3,
) -> list[LoopRow]:
    """PGD on KL with its loop rolled and unrolled: what compilation and running cost.

    The unrolled form is timed at the first number of steps only; its compilation grows.

    Args:
      model: network of `jaxrobust.models`.
      width: of the network.
      batch_size: images.
      steps: numbers of attack steps.
      repeats: of each measurement.

    Returns:
      A row per form and number of steps.

    Raises:
      AssertionError: if the two forms end at different losses.
    """
    bench = setting(model, width=width, batch_size=batch_size)
    programs = {}
    compile_seconds: dict[tuple[str, int], float] = {}
    for _ in range(repeats):
        for form, count in [("unrolled", steps[0]), *(("rolled", n) for n in steps)]:
            attack = partial(_attack, bench, count, count if form == "unrolled" else 1)
            started = time.perf_counter()
            programs[form, count] = (
                jax.jit(attack).lower(bench.variables).compile(compiler_options())
            )
            took = time.perf_counter() - started
            compile_seconds[form, count] = min(took, compile_seconds.get((form, count), took))
    calls = {key: partial(program, bench.variables) for key, program in programs.items()}
    seconds = least_times(calls, repeats)
    losses = {key: float(call()) for key, call in calls.items()}
    np.testing.assert_allclose(
        losses["unrolled", steps[0]],
        losses["rolled", steps[0]],
        rtol=0.02,
        err_msg="rolled and unrolled attacks disagree",
    )
    return [
        LoopRow(
            form, count, compile_seconds[form, count], seconds[form, count], losses[form, count]
        )
        for form, count in calls
    ]


def _attack(bench: Setting, steps: int, unroll: int, variables: Any) -> Array:
    found = pgd(
        lambda x: bench.model.apply(variables, x, train=False),
        jax.random.key(0),
        bench.images.astype(jnp.float32) / 255,
        bench.labels,
        threat=threats.linf(8 / 255),
        steps=steps,
        step_size=2 / 255,
        unroll=unroll,
    )
    return jnp.mean(found.loss)
