"""Compiling an experiment for a TPU slice that is not there: does it fit, how fast can it be."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from jaxrobust.bench._plan_chips import (
    Chip,
    TPUCompilerError,
    parse_topology,
    slice_devices,
)
from jaxrobust.bench._plan_data import DataShape, data_shape
from jaxrobust.bench._plan_programs import (
    Program,
    attack_program,
    steps_per_epoch,
    stock_convolutions,
    train_step_program,
)
from jaxrobust.bench._program_cost import program_cost
from jaxrobust.devices import check_split, device_mesh
from jaxrobust.experiment import Experiment
from jaxrobust.reasons import first_line


class ProgramPlan(NamedTuple):
    """One compiled program; all numbers are for one chip and one execution.

    Attributes:
      program: "train step", or the attack.
      batch_size: examples over all chips.
      compile_seconds: tracing, lowering and compilation on this machine.
      fits: the chip has room for it.
      problem: why not.
      argument_bytes: state and data set.
      temporary_bytes: of intermediate results.
      bytes_per_chip: everything together, the program too.
      memory_bytes: the chip has.
      flops: of convolutions and matrix products, loops as often as they run.
      traffic_bytes: between chip and memory, without padding.
      collectives: number of collective operations.
      collectives_in_loops: those inside of loops, such as the attack's.
      collective_bytes: that they hand out.
      bound_seconds: no execution can be faster: the largest of the next three.
      compute_seconds: flops over the chip's peak.
      traffic_seconds: traffic over the memory's bandwidth.
      collective_seconds: of all-reduces over all links of the chip, without latencies.
      xla_flops: of XLA's own cost analysis, which counts the bodies of loops once.
    """

    program: str
    batch_size: int
    compile_seconds: float
    fits: bool
    problem: str
    memory_bytes: float
    argument_bytes: int = 0
    temporary_bytes: int = 0
    bytes_per_chip: int = 0
    flops: int = 0
    traffic_bytes: int = 0
    collectives: int = 0
    collectives_in_loops: int = 0
    collective_bytes: int = 0
    bound_seconds: float = 0.0
    compute_seconds: float = 0.0
    traffic_seconds: float = 0.0
    collective_seconds: float = 0.0
    xla_flops: float = 0.0


class Plan(NamedTuple):
    """An experiment on a slice.

    Attributes:
      experiment: its name.
      topology: of the slice.
      chips: in it.
      steps: of the whole training.
      programs: the train step and the attack.
      hours: of the whole training at the train step's bound; nothing is faster.
      chip_hours: the same times the chips.
      largest_batch: the largest batch found that fits: per chip a power of two, as long as an epoch
        has a step; `None` where it was not asked for.
      assumed: sentences on what was assumed about the data.
      source: of the chip's figures.
    """

    experiment: str
    topology: str
    chips: int
    steps: int
    programs: tuple[ProgramPlan, ...]
    hours: float
    chip_hours: float
    largest_batch: int | None
    assumed: tuple[str, ...]
    source: str


def plan(
    experiment: Experiment,
    topology: str,
    *,
    attack: bool = True,
    largest_batch: bool = False,
    generated_size: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Plan:
    """Compiles an experiment's train step and attack with the real TPU compiler; runs nothing.

    Args:
      experiment: to plan.
      topology: of the slice, such as "v5e:16x16" or "v4:2x2x4".
      attack: also compile the margin PGD of the experiment's evaluation.
      largest_batch: also search the largest batch that fits; a compilation per power of two.
      generated_size: number of generated images; default that of the file, or 1,000,000 where the
        file is not there.
      say: told what is compiled.

    Returns:
      `Plan`.

    Raises:
      ValueError: if there is no such slice, or the batch does not split over its chips.
      TPUCompilerError: if libtpu is missing, held by another process, or fails.
    """
    chip, _ = parse_topology(topology)
    mesh = device_mesh(slice_devices(topology))
    check_split(experiment.batch_size, mesh, microbatches=experiment.microbatches, word="chips")
    shape = data_shape(experiment, generated_size=generated_size)
    steps = experiment.epochs * steps_per_epoch(experiment, shape)
    with _compiling_for_tpu():
        say(f"compiling the train step for {topology}: {mesh.size} chips")
        step = _compiled(
            "train step", experiment, mesh, chip, train_step_program(experiment, shape, mesh)
        )
        programs = [step]
        if attack:
            say("compiling the attack")
            programs.append(_attack_plan(experiment, shape, mesh, chip))
        largest = (
            _largest_batch(experiment, shape, mesh, chip, step, say) if largest_batch else None
        )
    hours = steps * step.bound_seconds / 3600
    return Plan(
        experiment.name,
        topology,
        mesh.size,
        steps,
        tuple(programs),
        hours,
        hours * mesh.size,
        largest,
        shape.assumed,
        chip.source,
    )


@contextlib.contextmanager
def _compiling_for_tpu() -> Iterator[None]:
    """Programs as a TPU gets them, although the default backend is another; nothing cached."""
    config: Any = jax.config
    cached = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    try:
        with stock_convolutions():
            yield
    finally:
        config.update("jax_enable_compilation_cache", cached)


def _attack_plan(experiment: Experiment, shape: DataShape, mesh: Mesh, chip: Chip) -> ProgramPlan:
    program, batch_size = attack_program(experiment, shape, mesh)
    name = f"margin PGD-{experiment.evaluation.steps}"
    return _compiled(name, replace(experiment, batch_size=batch_size), mesh, chip, program)


def _compiled(
    name: str, experiment: Experiment, mesh: Mesh, chip: Chip, program: Program
) -> ProgramPlan:
    """Compiles and reads one program."""
    function, arguments = program
    started = time.perf_counter()
    lowered = function.lower(*arguments)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        seconds = time.perf_counter() - started
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise TPUCompilerError(f"the TPU compiler failed: {first_line(error)}") from error
        problem = first_line(error)
        return ProgramPlan(name, experiment.batch_size, seconds, False, problem, chip.memory_bytes)
    seconds = time.perf_counter() - started
    memory, cost = compiled.memory_analysis(), program_cost(compiled.as_text())
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes
    used += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    used -= memory.alias_size_in_bytes
    # It also compiles some programs that need more than there is.
    large = f"it needs {used / 2**30:.2f} GiB per chip" if used > chip.memory_bytes else ""
    sent = 2 * (mesh.size - 1) / mesh.size * cost.collective_bytes
    times = (
        cost.matrix_flops / chip.flops,
        cost.memory_bytes / chip.memory_bandwidth,
        sent / chip.link_bandwidth,
    )
    return ProgramPlan(
        program=name,
        batch_size=experiment.batch_size,
        compile_seconds=seconds,
        fits=not large,
        problem=large,
        memory_bytes=chip.memory_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        bytes_per_chip=used,
        flops=cost.matrix_flops,
        traffic_bytes=cost.memory_bytes,
        collectives=sum(cost.collectives.values()),
        collectives_in_loops=sum(n for (_, inside), n in cost.collectives.items() if inside),
        collective_bytes=cost.collective_bytes,
        bound_seconds=max(times),
        compute_seconds=times[0],
        traffic_seconds=times[1],
        collective_seconds=times[2],
        xla_flops=float((compiled.cost_analysis() or {}).get("flops", 0.0)),
    )


def _largest_batch(
    experiment: Experiment,
    shape: DataShape,
    mesh: Mesh,
    chip: Chip,
    known: ProgramPlan,
    say: Callable[[str], None],
) -> int:
    """The largest batch that fits, per chip a power of two times the microbatches; 0 if none."""
    unit = mesh.size * experiment.microbatches
    answers = {known.batch_size: known.fits}

    def fits(exponent: int) -> bool:
        batch = unit * 2**exponent
        if batch not in answers:
            say(f"compiling the train step with a batch of {batch}")
            larger = replace(experiment, batch_size=batch)
            program = train_step_program(larger, shape, mesh)
            answers[batch] = _compiled("train step", larger, mesh, chip, program).fits
        return answers[batch]

    highest = (shape.train_size // unit).bit_length() - 1  # a step per epoch is left
    low, high = -1, highest + 1  # `low` fits, `high` does not
    guess = max((known.batch_size // unit).bit_length() - 1, 0)
    reach = 1  # away from the experiment's own batch in growing strides, then halving
    while high - low > 1:
        guess = min(max(guess, low + 1), high - 1)
        if fits(guess):
            low, guess = guess, guess + reach
        else:
            high, guess = guess, guess - reach
        reach *= 2
        if low >= 0 and high <= highest:
            guess = (low + high) // 2
    return 0 if low < 0 else unit * 2**low
