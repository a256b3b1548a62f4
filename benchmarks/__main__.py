"""The command line of the benchmarks: `python -m benchmarks --help`."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import click

from benchmarks.fault_kinds import COMMANDS, KINDS
from benchmarks.fuzz import READERS
from benchmarks.mutants import ROOMS
from jaxrobust.cli import main
from jaxrobust.cli_bench import without_a_cache
from jaxrobust.cli_options import JSON, QUIET, count_option, echo, refuse, without_a_tpu

# JAX and the library are imported inside the commands: `--help` answers at once.

NETWORK = (count_option("--width", 16), count_option("--batch-size", 32))
RUN = (count_option("--steps", 10, "Attack steps."), count_option("--repeats", 3), JSON)

# What `compile` measures on this machine, and not with --topology.
MEASURED = (
    *("programs", "model", "depth", "width", "batch_size", "steps", "eager_steps"),
    *("figure", "curve_steps", "curve_depths"),
)


def options(*decorators: Any) -> Any:
    """Several options as one decorator, in the order in which the help shows them."""

    def decorated(command: Any) -> Any:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorated


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """Wrong settings end in their own line, without the place in this code where they are found."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def benchmarks() -> None:
    """Compare with other libraries, and forms of a program with each other."""
    without_a_cache()


@benchmarks.command()
@options(*NETWORK, *RUN)
def peers(path: pathlib.Path | None, **settings: int) -> None:
    """PGD of foolbox, torchattacks, ART and AdverTorch on the same network beside ours.

    The first three run on a PyTorch copy of it: pip install torch foolbox torchattacks
    """
    from benchmarks.commands import peers

    peers(path, **settings)


@benchmarks.command()
@options(*NETWORK, *RUN)
def pytorch(path: pathlib.Path | None, **settings: int) -> None:
    """Passes and the train step of TRADES beside PyTorch's (pip install torch)."""
    from benchmarks.commands import pytorch

    with mistakes():
        pytorch(path, **settings)


@benchmarks.command()
@options(click.option("--model", default="preact_resnet18", show_default=True), *NETWORK, *RUN)
def forms(path: pathlib.Path | None, **settings: Any) -> None:
    """PGD rolled and unrolled; train steps with and without random rotations and shifts."""
    from benchmarks.commands import forms

    with mistakes():
        forms(path, **settings)


@benchmarks.command()
@options(count_option("--repeats", 3), JSON)
def convolutions(path: pathlib.Path | None, **settings: int) -> None:
    """Passes and gradient steps in a loop with stock and with fast convolutions (CPU)."""
    from benchmarks.commands import convolutions

    convolutions(path, **settings)


@benchmarks.command("fast-verdict")
@click.option(
    "--model",
    "models",
    type=(click.Path(exists=True, dir_okay=False), click.Choice(["linf", "l2", "l1"]), float),
    multiple=True,
    metavar="FILE NORM EPS",
    help="Another network with its images, an npz as benchmarks/fast_verdict.py says. May be "
    "given several times.",
)
@click.option("--digits/--no-digits", default=True, help="The digits networks of the tests.")
@click.option("--points", type=click.IntRange(min=1), help="The first so many images.")
@count_option("--seeds", 1, "Number of seeds, from 0 on.")
@count_option("--repeats", 1, "Runs of each evaluation with seed 0, for its seconds.")
@JSON
def fast_verdict(path: pathlib.Path | None, **settings: Any) -> None:
    """The fast verdict beside the standard AutoAttack: robust points, passes, seconds.

    \b
    python -m benchmarks fast-verdict --seeds 3 --json fast_verdict.json
    python -m benchmarks fast-verdict --no-digits --model mnist.npz l2 1.5 --points 100
    """
    if not settings["digits"] and not settings["models"]:
        raise click.UsageError("--no-digits leaves nothing to evaluate; give a --model")
    from benchmarks.commands import fast_verdict

    with mistakes():
        fast_verdict(path, **settings)


@benchmarks.command()
@click.option("--only", multiple=True, help="The name of a network. May be given several times.")
@click.option("--points", type=click.IntRange(min=1), help="The first so many images.")
@count_option("--steps", 100, "Of the gradient attacks in the audit's first round.")
@count_option("--queries", 1000, "Of random search in the audit.")
@count_option("--rounds", 3, "At most so many.")
@JSON
def audit(path: pathlib.Path | None, **settings: Any) -> None:
    """The audit of what AutoAttack leaves, on networks that hide their gradients and on others.

    \b
    python -m benchmarks audit --json audit.json
    python -m benchmarks audit --only MixedNUTS
    """
    from benchmarks.commands import audit

    with mistakes():
        audit(path, **settings)


@benchmarks.command()
@click.option(
    "--norm",
    "norms",
    type=click.Choice(["linf", "l2", "l1", "l0"]),
    multiple=True,
    default=("linf", "l2", "l1", "l0"),
    show_default=True,
    help="May be given several times.",
)
@count_option("--points", 100, "The first so many images.")
@click.option(
    "--steps", type=click.IntRange(min=2), help="Of every attack (default: as published)."
)
@JSON
def distances(path: pathlib.Path | None, **settings: Any) -> None:
    """Minimum-norm attacks on the digits networks: distances beside the authors', optimality, cost.

    \b
    python -m benchmarks distances --json distances.json
    """
    from benchmarks.commands import distances

    with mistakes():
        distances(path, **settings)


@benchmarks.command()
@count_option("--steps", 1000, "Of every attack.")
@count_option("--points", 100, "The first so many images.")
@count_option("--repeats", 3)
@JSON
def minimum_norm_peers(path: pathlib.Path | None, **settings: int) -> None:
    """Minimum-norm attacks of adversarial-library (pip install torch adv-lib) beside ours.

    \b
    python -m benchmarks minimum-norm-peers --json minimum_norm_peers.json
    """
    from benchmarks.commands import minimum_norm_peers

    minimum_norm_peers(path, **settings)


@benchmarks.command()
@count_option("--trials", 3, "Of each kind for each command; see docs/reliability.md.")
@click.option("--seed", default=0, show_default=True, help="Draws moments, files and places.")
@click.option(
    "--only", multiple=True, type=click.Choice(KINDS), help="The kind. May be given several times."
)
@click.option(
    "--command",
    "commands",
    multiple=True,
    type=click.Choice(list(COMMANDS)),
    help="The command that is tried. May be given several times.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=pathlib.Path),
    help="New folder for the runs, kept afterwards (default: a temporary one).",
)
@JSON
def faults(path: pathlib.Path | None, **settings: Any) -> None:
    """Kills, damage and difficult surroundings on the real command line.

    \b
    python -m benchmarks faults --trials 1 --only SIGKILL --command train
    python -m benchmarks faults --trials 20 --json faults.json
    """
    from benchmarks.commands import faults

    with mistakes():
        faults(path, **settings)


@benchmarks.command("bounds")
@click.option(
    "--method",
    "methods",
    type=click.Choice(["ibp", "crown-ibp", "crown", "alpha-crown"]),
    multiple=True,
    default=("ibp", "crown-ibp", "crown"),
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--network",
    "networks",
    type=click.Choice(["resnet2b", "oval_base"]),
    multiple=True,
    help="Architecture, with random weights; default both.",
)
@click.option("--limits/--no-limits", default=True, help="Also radii by depth and width.")
@count_option("--repeats", 3, "Timed calls of each program.")
@JSON
def bounds(path: pathlib.Path | None, **settings: Any) -> None:
    """Certified bounds: seconds an image, and at which depth and width they prove nothing.

    \b
    python -m benchmarks bounds --json bounds.json
    """
    from benchmarks.commands import bounds

    with mistakes():
        bounds(path, **settings)


@benchmarks.command("compile")
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
@count_option("--depth", 22, "Of the WideResNet.")
@count_option("--width", 1)
@count_option("--batch-size", 8)
@count_option("--steps", 10, "Attack steps.")
@count_option("--eager-steps", 2, "Attack steps of the form that is not compiled as a whole.")
@count_option("--repeats", 3)
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
def compile_(
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
    python -m benchmarks compile --program pgd --repeats 1
    python -m benchmarks compile --json compile.json --figure compile.png
    python -m benchmarks compile --topology v5e:2x2 --repeats 1
    """
    if topology is not None:
        refuse(*MEASURED, because="has no effect with --topology, whose programs are fixed")
        without_a_tpu()
    if settings["figure"] is None:
        refuse("curve_steps", "curve_depths", because="belongs to --figure")
    if settings["model"] != "wide_resnet":
        refuse("depth", because="belongs to --model wide_resnet")
    from benchmarks.compile_command import compile_programs

    with mistakes():
        points: dict[str, Any] = {
            "curve_steps": _numbers("--curve-steps", curve_steps),
            "curve_depths": _numbers("--curve-depths", curve_depths),
        }
        compile_programs(path, topology=topology, **points, **settings)


def _numbers(option: str, text: str) -> list[int]:
    """Positive integers from a list with commas."""
    found = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and int(word) > 0 for word in found):
        raise ValueError(f"{option} must be positive integers with commas between, got {text!r}")
    return [int(word) for word in found]


@benchmarks.command()
@click.option(
    "--reader", "readers", multiple=True, type=click.Choice([*READERS]), help="Default: all."
)
@count_option("--seconds", 600, "Time for each reader.")
@click.option("--seed", default=1, show_default=True, help="Of libFuzzer.")
@JSON
def fuzz(path: pathlib.Path | None, **settings: Any) -> None:
    """The readers of foreign files under a coverage-guided fuzzer (needs atheris).

    \b
    python -m benchmarks fuzz --reader npz --seconds 60
    """
    from benchmarks.commands import fuzz

    with mistakes():
        fuzz(path, **settings)


@benchmarks.command()
@click.option("--room", "rooms", multiple=True, type=click.Choice(ROOMS), help="Default: all.")
@count_option("--number", 40, "Number of changes of each room.")
@click.option("--seed", default=0, show_default=True, help="Draws the changes.")
@JSON
def mutants(path: pathlib.Path | None, **settings: Any) -> None:
    """Small wrong changes of the code, each tried on its room's fast tests.

    \b
    python -m benchmarks mutants --room losses --number 10
    """
    from benchmarks.commands import mutants

    with mistakes():
        mutants(path, **settings)


@benchmarks.command()
@click.argument("results", type=click.Path(path_type=pathlib.Path, exists=True, dir_okay=False))
def table(results: pathlib.Path) -> None:
    """Print RESULTS, what one of these commands wrote with --json, as Markdown."""
    from benchmarks.markdown import table

    with mistakes():
        echo(table(results))


if __name__ == "__main__":
    main(benchmarks)
