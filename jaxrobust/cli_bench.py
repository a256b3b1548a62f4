"""The `bench` commands of `jaxrobust`."""

import os
import pathlib
from typing import Any

import click

from jaxrobust.cli_options import JSON, SET, count_option

# JAX and the library are imported inside the commands, as in `cli`.


@click.group()
def bench() -> None:
    """Measure speed: times and their ratios, taken side by side in one run.

    \b
    jaxrobust bench step --objective trades --objective score
    """
    without_a_cache()


def without_a_cache() -> None:
    """Switches JAX's cache off: no compilation of a cached program could be measured."""
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


@bench.command("attack")
@count_option("--width", 16)
@count_option("--batch-size", 32)
@count_option("--steps", 10)
@count_option("--queries", 100)
@count_option("--repeats", 3)
@JSON
def bench_attack(path: pathlib.Path | None, **settings: Any) -> None:
    """Time APGD, FAB-T, Square and minimum-norm attacks against their passes.

    \b
    jaxrobust bench attack --width 16 --steps 10
    """
    from jaxrobust.commands import bench_attack

    bench_attack(path, **settings)


@bench.command("many")
@count_option("--betas", 8)
@count_option("--seeds", 3)
@count_option("--epochs", 10)
@JSON
def bench_many(path: pathlib.Path | None, **settings: int) -> None:
    """Time TRADES for several beta and seeds: separate runs against one program.

    \b
    jaxrobust bench many --betas 8 --seeds 3
    """
    from jaxrobust.commands import bench_many

    bench_many(path, **settings)


@bench.command("step")
@click.option("--objective", "objectives", multiple=True, default=("trades",), show_default=True)
@click.option("--model", default="preact_resnet18", show_default=True)
@count_option("--width", 16)
@count_option("--batch-size", 32)
@count_option("--steps", 10)
@count_option("--repeats", 3)
@JSON
def bench_step(path: pathlib.Path | None, **settings: Any) -> None:
    """Time train steps against their forward and backward passes.

    --objective may be given several times.

    \b
    jaxrobust bench step --objective trades --objective score --json step.json
    """
    from jaxrobust.commands import bench_step

    bench_step(path, **settings)


@bench.command("throughput")
@click.argument("experiments", type=click.Path(path_type=pathlib.Path), nargs=-1, required=True)
@SET
@count_option("--steps", 10)
@count_option("--repeats", 3)
@JSON
def bench_throughput(
    experiments: tuple[pathlib.Path, ...],
    assignments: tuple[str, ...],
    path: pathlib.Path | None,
    **settings: int,
) -> None:
    """Measure the images/s and FLOP/s of EXPERIMENTS' train steps on this device.

    Matrix products are measured beside them, for comparison. Of a trade-off, every member is
    measured.

    \b
    jaxrobust bench throughput cifar10_trades_preact18 --json throughput.json
    """
    from jaxrobust.commands import bench_throughput

    members = [member for each in experiments for member in members_of(each, assignments)]
    bench_throughput(members, path, **settings)


def members_of(experiment: pathlib.Path, assignments: tuple[str, ...]) -> list[Any]:
    """The experiment of a file, or the members of its trade-off that train, overridden."""
    from jaxrobust.experiment import Experiment, load, override

    config = override(load(experiment), assignments)
    if isinstance(config, Experiment):
        return [config]
    return [point.experiment for point in config.points() if point.experiment.epochs]
