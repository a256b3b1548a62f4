"""The requirements and the cost of an experiment on a TPU slice, as text and as JSON."""

import pathlib
from collections.abc import Callable
from typing import Any

from jaxrobust.bench import Plan, ProgramPlan, plan
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Experiment, to_dict

NOTHING_RAN = (
    "Nothing ran: the programs were compiled for chips that are not here. Bounds are what the "
    "chips' peak figures allow; real steps are slower."
)


def plan_experiment(
    experiment: Experiment,
    topology: str,
    *,
    path: pathlib.Path | None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Plan:
    """Plans an experiment on a slice; prints the numbers, writes JSON.

    Args:
      experiment: the experiment to plan.
      topology: the topology of the slice, such as "v5e:16x16".
      path: the JSON file, or `None`.
      say: called with each line of output.
      **settings: settings of `bench.plan`.

    Returns:
      `bench.Plan`.

    Raises:
      ValueError: if there is no such slice, or the batch does not split over its chips.
      TPUCompilerError: if libtpu is missing, held by another process, or fails.
    """
    found = plan(experiment, topology, say=say, **settings)
    for line in plan_lines(found):
        say(line)
    if path is not None:
        values = found._asdict() | {
            "programs": [program._asdict() for program in found.programs],
            "ran": False,
            "note": NOTHING_RAN,
            "settings": to_dict(experiment),
            "provenance": provenance(),
        }
        write_json(path, values)
    return found


def plan_lines(found: Plan) -> list[str]:
    """A plan as text.

    Args:
      found: the plan.

    Returns:
      Lines of text.
    """
    lines = [f"{found.experiment} on {found.topology}, {found.chips} chips. {NOTHING_RAN}"]
    lines += [f"  assumed: {sentence}" for sentence in found.assumed]
    for program in found.programs:
        lines += _program_lines(program)
    if found.programs[0].fits:
        lines.append(
            f"whole training: {found.steps:,} steps, at least {found.hours:.3g} hours, "
            f"{found.chip_hours:.3g} chip-hours"
        )
    if found.largest_batch is not None:
        largest = found.largest_batch
        lines.append(f"largest batch that fits: {largest:,}" if largest else "no batch fits")
    return [*lines, f"peak figures: {found.source}"]


def _program_lines(program: ProgramPlan) -> list[str]:
    head = f"{program.program}, batch {program.batch_size}"
    compiled = f"compiled in {program.compile_seconds:.0f} s"
    if not program.fits:
        return [f"{head}: does not fit ({compiled}): {program.problem}"]
    used, has = program.bytes_per_chip / 2**30, program.memory_bytes / 2**30
    within = f"{program.collectives_in_loops} inside of loops"
    return [
        f"{head}: fits ({compiled}); per chip and execution:",
        f"  memory       {used:.2f} of {has:.0f} GiB: state and data "
        f"{program.argument_bytes / 2**30:.2f}, temporary {program.temporary_bytes / 2**30:.2f}",
        f"  compute      {program.flops / 1e9:,.1f} GFLOP, "
        f"at least {1e3 * program.compute_seconds:.3g} ms",
        f"  memory bus   {program.traffic_bytes / 1e9:.3g} GB, "
        f"at least {1e3 * program.traffic_seconds:.3g} ms",
        f"  collectives  {program.collectives} ({within}), "
        f"{program.collective_bytes / 1e6:.3g} MB, "
        f"at least {1e3 * program.collective_seconds:.3g} ms",
        f"  bound        {1e3 * program.bound_seconds:.3g} ms",
    ]
