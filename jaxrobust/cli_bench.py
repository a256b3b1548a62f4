"""The `bench` commands of `jaxrobust`."""

import os
import pathlib
from typing import Any

import click

from jaxrobust.cli_options import JSON, SET, count_option, one_experiment

# JAX and the library are imported inside the commands, as in `cli`.


@click.group()
def bench() -> None:
    """Measure speed: ratios taken side by side in one run."""
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
    """APGD, FAB-T, Square and minimum-norm attacks against the passes they are made of."""
    from jaxrobust.commands import bench_attack

    bench_attack(path, **settings)


@bench.command("many")
@count_option("--betas", 8)
@count_option("--seeds", 3)
@count_option("--epochs", 10)
@JSON
def bench_many(path: pathlib.Path | None, **settings: int) -> None:
    """TRADES for several beta and seeds: runs one after the other against one program."""
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
    """Train steps against the passes they are made of.

    --objective may be given several times.
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
    """Images/s of EXPERIMENTS' train steps, and their FLOP/s beside matrix products on this device.

    \b
    jaxrobust bench throughput experiments/cifar10_trades_preact18.py --json throughput.json
    """
    from jaxrobust.commands import bench_throughput

    bench_throughput([one_experiment(each, assignments) for each in experiments], path, **settings)
