"""The `bench` commands of `jaxrobust`."""

import os
import pathlib
from typing import Any

import click

from jaxrobust.cli_options import JSON, QUIET, SET, one_experiment, refuse, without_a_tpu

# JAX and the library are imported inside the commands, as in `cli`.

# What `bench compile` measures on this machine, and not with --topology.
MEASURED = (
    *("programs", "model", "depth", "width", "batch_size", "steps", "eager_steps"),
    *("figure", "curve_steps", "curve_depths"),
)


@click.group()
def bench() -> None:
    """Measure speed: ratios taken side by side in one run."""
    # Of a program that is found in the cache, no compilation could be measured.
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"


@bench.command("attack")
@click.option("--width", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--peers", is_flag=True, help="PGD of other libraries instead.")
@JSON
def bench_attack(path: pathlib.Path | None, **settings: Any) -> None:
    """APGD, FAB-T and Square against the passes of the model they are made of.

    --peers: PGD of foolbox, torchattacks, ART and AdverTorch on the same network beside ours;
    the first three run on a PyTorch copy of it (pip install torch foolbox torchattacks).
    """
    if settings["peers"]:
        refuse("queries", because="has no effect with --peers")
    from jaxrobust.commands import bench_attack

    bench_attack(path, **settings)


@bench.command("compile")
@click.option(
    "--program",
    "programs",
    type=click.Choice(["train step", "pgd", "apgd", "autoattack"]),
    multiple=True,
    default=("train step", "pgd", "autoattack"),
    show_default=True,
    help="May be given several times.",
)
@click.option("--model", default="wide_resnet", show_default=True, help="Or preact_resnet18.")
@click.option(
    "--depth", type=click.IntRange(min=1), default=22, show_default=True, help="Of the WideResNet."
)
@click.option("--width", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option(
    "--eager-steps",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Of the form that is not compiled as a whole.",
)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@JSON
@click.option(
    "--figure",
    type=click.Path(path_type=pathlib.Path),
    help="Also measure PGD over steps and depth, and draw it there.",
)
@click.option("--curve-steps", default="1,10,40,100", show_default=True)
@click.option("--curve-depths", default="10,28,46,70", show_default=True)
@click.option(
    "--topology",
    metavar="CHIP:SHAPE",
    help="Compile PGD-10 of WRN-28-10 and APGD-100 of PreActResNet-18 for v5e:2x2 or another "
    "TPU slice instead; nothing runs. Only --repeats, --limit-minutes and --json go with it.",
)
@click.option(
    "--limit-minutes",
    type=click.FloatRange(min=0.0, min_open=True),
    default=15.0,
    show_default=True,
    help="Of one process.",
)
@QUIET
def bench_compile(
    path: pathlib.Path | None,
    curve_steps: str,
    curve_depths: str,
    topology: str | None,
    **settings: Any,
) -> None:
    """Trace, lower, compile (cold, cached, exported), first and next runs, size and memory.

    Eager, rolled, unrolled, with scanned blocks, with stock convolutions; every measurement in a
    fresh process, all in turn, their results compared.

    \b
    jaxrobust bench compile --program pgd --repeats 1
    jaxrobust bench compile --json compile.json --figure compile.png
    jaxrobust bench compile --topology v5e:2x2 --repeats 1
    """
    if topology is not None:
        refuse(*MEASURED, because="has no effect with --topology, whose programs are fixed")
        without_a_tpu()
    if settings["figure"] is None:
        refuse("curve_steps", "curve_depths", because="belongs to --figure")
    if settings["model"] != "wide_resnet":
        refuse("depth", because="belongs to --model wide_resnet")
    from jaxrobust.commands import bench_compile

    points: dict[str, Any] = {
        "curve_steps": _numbers("--curve-steps", curve_steps),
        "curve_depths": _numbers("--curve-depths", curve_depths),
    }
    bench_compile(path, topology=topology, **points, **settings)


def _numbers(option: str, text: str) -> list[int]:
    """Positive integers from a list with commas."""
    found = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and int(word) > 0 for word in found):
        raise ValueError(f"{option} must be positive integers with commas between, got {text!r}")
    return [int(word) for word in found]


@bench.command("convolutions")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@JSON
def bench_convolutions(path: pathlib.Path | None, **settings: int) -> None:
    """Passes and gradient steps in a loop with stock and with fast convolutions (CPU)."""
    from jaxrobust.commands import bench_convolutions

    bench_convolutions(path, **settings)


@bench.command("many")
@click.option("--betas", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@JSON
def bench_many(path: pathlib.Path | None, **settings: int) -> None:
    """TRADES for several beta and seeds: runs one after the other against one program."""
    from jaxrobust.commands import bench_many

    bench_many(path, **settings)


@bench.command("step")
@click.option("--objective", "objectives", multiple=True, default=("trades",), show_default=True)
@click.option("--model", default="preact_resnet18", show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--torch-only", is_flag=True, help="Only the comparisons with PyTorch.")
@JSON
def bench_step(path: pathlib.Path | None, **settings: Any) -> None:
    """Train steps against the passes they are made of; rolled against unrolled; PyTorch.

    --objective may be given several times.
    """
    if settings["torch_only"]:
        refuse("objectives", because="has no effect with --torch-only")
    from jaxrobust.commands import bench_step

    bench_step(path, **settings)


@bench.command("throughput")
@click.argument("experiments", type=click.Path(path_type=pathlib.Path), nargs=-1, required=True)
@SET
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
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
