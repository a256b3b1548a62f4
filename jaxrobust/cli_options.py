"""Options that several subcommands share; nothing here needs JAX."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import click

EXPERIMENT = click.argument("experiment", type=click.Path(path_type=pathlib.Path))
SET = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a setting: --set objective.beta=3 --set threat.eps=8/255",
)
WORKDIR = click.option(
    "--workdir",
    type=click.Path(path_type=pathlib.Path),
    help="The folder to write to (default: runs/NAME); train: also gs://BUCKET/FOLDER.",
)
QUIET = click.option("--quiet", is_flag=True, help="No progress bars.")
JSON = click.option(
    "--json", "path", type=click.Path(path_type=pathlib.Path), help="Also write the rows there."
)
TOPOLOGY = click.option(
    "--topology",
    required=True,
    metavar="CHIP:SHAPE",
    help="v4, v5e, v5p or v6e, and the chips along each axis: v5e:16x16, v4:2x2x4.",
)
RUNNER = click.option(
    "--runner",
    type=click.Choice(["shard_map", "pmap"]),
    default="shard_map",
    show_default=True,
    help="What runs the step on all devices; the numbers are the same.",
)
PROCESS_OPTIONS = (
    click.option(
        "--distributed",
        is_flag=True,
        help="Several processes, also where TPU pod, Slurm or Kubernetes is not recognised.",
    ),
    click.option("--coordinator", metavar="HOST:PORT", help="Elsewhere: where process 0 listens,"),
    click.option("--processes", type=click.IntRange(min=1), help="how many there are,"),
    click.option("--process-id", type=click.IntRange(min=0), help="and which one this is."),
)
PROCESSES = ("distributed", "coordinator", "processes", "process_id")


def process_options(command: Callable) -> Callable:
    """Adds the options on several processes to a command; `join` takes them."""
    for option in reversed(PROCESS_OPTIONS):
        command = option(command)
    return command


def join(settings: dict[str, Any]) -> None:
    """Takes the options on several processes out of the settings and joins them."""
    from jaxrobust.processes import join_processes

    join_processes(**{name: settings.pop(name) for name in PROCESSES})


def without_a_tpu() -> None:
    """Environment of a process that only compiles for TPUs, before JAX is imported."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # a chip or GPU that is here is not touched
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # libtpu otherwise tells at length that there is no TPU.
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_LOG_DIR", "disabled")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def autoattack_options(
    experiment: Any, *, norm: str | None, eps: str | None, eps_sweep: str | None, **options: Any
) -> dict[str, Any]:
    """The options of AutoAttack; norm and eps default to the run's own threat."""
    threat = experiment.threat
    if norm is None:
        if threat.name not in ("linf", "l2", "l1"):
            raise ValueError(f"--norm must be given: the run's threat {threat.name} has none")
        norm = threat.name
    if eps and eps_sweep:
        raise ValueError("--eps and --eps-sweep exclude each other")
    if eps_sweep or eps:
        radii = [radius(text) for text in (eps_sweep or eps or "").split(",")]
    elif norm == threat.name:
        radii = [threat.kwargs["eps"]]
    else:
        raise ValueError(f"--eps must be given: the run's threat is {threat.name}, not {norm}")
    if options["attacks"] is not None:
        options["attacks"] = options["attacks"].split(",")
    return {"norm": norm, "eps": radii, **options}


def radius(text: str) -> float:
    """A radius in image units: a number or a fraction."""
    from jaxrobust.spec import number

    try:
        return float(number(text))
    except ValueError:
        raise ValueError(
            f"--eps must be a number or a fraction such as 8/255, got {text!r}"
        ) from None


def one_experiment(experiment: pathlib.Path, assignments: tuple[str, ...]) -> Any:
    """The experiment of a file, overridden."""
    from jaxrobust.experiment import Experiment, load, override

    config = load(experiment)
    if not isinstance(config, Experiment):
        raise ValueError(f"{experiment} is a trade-off: run it with `jaxrobust tradeoff`")
    return override(config, assignments)
