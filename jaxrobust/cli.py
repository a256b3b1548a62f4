"""The `jaxrobust` command."""

import pathlib
import sys
from collections.abc import Iterable
from typing import Any

import click

from jaxrobust import shipped
from jaxrobust.cli_bench import bench
from jaxrobust.cli_cache import set_up_compilation_cache
from jaxrobust.cli_ends import (
    end,
    end_at_once_on_interrupt,
    hush_orbax,
    plain_warnings,
    repeat_ignored_interrupts,
)
from jaxrobust.cli_evaluate import evaluate
from jaxrobust.cli_help import lay_out
from jaxrobust.cli_mixed import evaluate_mixed
from jaxrobust.cli_options import (
    BUDGET,
    CHECKPOINT,
    EXPERIMENT,
    JSON,
    QUIET,
    RUNNER,
    SET,
    TOPOLOGY,
    TRUST,
    Number,
    echo,
    join,
    one_experiment,
    process_options,
    refuse,
    without_a_tpu,
    workdir_option,
)

# JAX and the library are imported inside the commands: `--help` and a typing error answer at
# once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jaxrobust")
def cli() -> None:
    """The trade-off between accuracy and robustness, in JAX.

    \b
    jaxrobust new mine.py
    jaxrobust train mine.py
    jaxrobust evaluate runs/mine
    """


cli.add_command(evaluate)
cli.add_command(evaluate_mixed)
cli.add_command(bench)


@cli.command()
@EXPERIMENT
@SET
@TRUST
@workdir_option(", also gs://BUCKET/FOLDER")
@click.option("--resume", is_flag=True, help="Continue from the latest readable checkpoint.")
@click.option(
    "--init-from",
    metavar="SOURCE",
    help="Start from the weights of a run's folder or of a file in PyTorch's format; the same as "
    "--set init_from=SOURCE.",
)
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events.")
@RUNNER
@process_options
@QUIET
def train(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    workdir: pathlib.Path | None,
    init_from: str | None,
    **settings: Any,
) -> None:
    """Train an EXPERIMENT: a file, or the name of one that comes with the library.

    Evaluate it afterwards with `jaxrobust evaluate`.

    \b
    jaxrobust train mine.py
    jaxrobust train digits_trades --set objective.beta=3 --set threat.eps=26/255
    jaxrobust train digits_trades --resume
    """
    join(settings)  # before all else of JAX
    from jaxrobust.processes import is_first
    from jaxrobust.training import train

    if init_from is not None:
        assignments += (f"init_from={init_from}",)
    config = one_experiment(experiment, assignments)
    folder = workdir or pathlib.Path("runs") / config.name
    trained = train(config, folder, say=echo, **settings)
    if is_first():
        echo(f"trained {config.name} to step {int(trained.state.step)} in {trained.workdir}")


@cli.command()
@EXPERIMENT
@SET
@TRUST
@workdir_option()
@QUIET
def tradeoff(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    workdir: pathlib.Path | None,
    quiet: bool,
) -> None:
    """Train and attack every member of an EXPERIMENT and draw the trade-off.

    EXPERIMENT is a file, or the name of one that comes with the library. --set applies to all
    members, and --set tradeoff.seeds=[0] to the trade-off itself. After an interruption the same
    command continues. The exit code is 1 if a member failed.

    \b
    jaxrobust tradeoff digits_tradeoff
    jaxrobust tradeoff digits_tradeoff --set epochs=5 --set tradeoff.seeds=[0,1]
    """
    from jaxrobust.commands import run_tradeoff
    from jaxrobust.experiment import Experiment, Tradeoff, load, override

    config = load(experiment)
    if isinstance(config, Experiment):
        config = Tradeoff(name=config.name, members=(config,))
    config = override(config, assignments)
    folder = workdir or pathlib.Path("runs") / config.name
    results = run_tradeoff(config, folder, quiet=quiet, say=echo)
    if any("failure" in member for member in results["members"].values()):
        click.get_current_context().exit(1)


@cli.command()
@click.argument("run", type=click.Path(path_type=pathlib.Path))
@click.argument("folder", type=click.Path(path_type=pathlib.Path))
@CHECKPOINT
@TRUST
def export(run: pathlib.Path, folder: pathlib.Path, checkpoint: str) -> None:
    """Write the network of a RUN and its results to a FOLDER, to be published.

    The folder has the weights (safetensors), the configuration, the rows, and a model card.
    `evaluate` and --init-from take it in the place of a run.

    \b
    jaxrobust export runs/digits_trades published/digits_trades
    jaxrobust export runs/digits_trades published/last --checkpoint last
    """
    from jaxrobust.commands import export_run

    export_run(run, folder, checkpoint=checkpoint, say=echo)


@cli.command()
@click.argument("results", type=click.Path(path_type=pathlib.Path))
@click.option("--fronts", is_flag=True, help="Of sweeps, print areas and comparisons instead.")
def table(results: pathlib.Path, fronts: bool) -> None:
    """Print RESULTS (results.json of a trade-off, rows.jsonl of a run) as Markdown.

    \b
    jaxrobust table runs/digits_trades/rows.jsonl
    jaxrobust table runs/digits_tradeoff/results.json
    """
    from jaxrobust.commands import fronts_markdown, markdown_table

    echo((fronts_markdown if fronts else markdown_table)(results))


@cli.command()
@click.argument("file", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--like",
    metavar="NAME",
    help="Copy this experiment of the library; `jaxrobust list experiments` shows the names.",
    shell_complete=lambda ctx, param, text: [
        n for n in shipped.experiments() if n.startswith(text)
    ],
)
def new(file: pathlib.Path, like: str | None) -> None:
    """Write an experiment FILE to start from.

    \b
    jaxrobust new mine.py
    jaxrobust new mine.py --like cifar10_trades_preact18
    """
    from jaxrobust.commands import new_experiment

    new_experiment(file, like=like, say=echo)


@cli.command("list")
@click.argument("part", required=False, shell_complete=lambda ctx, param, text: _parts(text))
def list_parts(part: str | None) -> None:
    """Show what an experiment can be made of: all parts, or one PART with its arguments.

    `jaxrobust list experiments` shows the experiments that come with the library.

    \b
    jaxrobust list objective
    jaxrobust list experiments
    """
    if part == "experiments":
        for name, entry in shipped.experiments().items():
            echo(f"{name}  ({entry.command})")
            echo(f"  {entry.title}")
        return
    from jaxrobust.experiment import PARTS
    from jaxrobust.spec import signature_of

    if part is not None and part not in PARTS:
        known = ", ".join([*PARTS, "experiments"])
        raise ValueError(f"part {part!r} is unknown; choose from {known}")
    for name in PARTS if part is None else [part]:
        echo(f"{name}:")
        for heading, options in _grouped(name, PARTS[name].names).items():
            if heading:
                echo(f"  # {heading}")
            for option in options:
                shown = ", ".join(
                    p.name if p.default is p.empty else f"{p.name}={p.default!r}"
                    for p in signature_of(PARTS[name].names[option]).parameters.values()
                    if p.name not in PARTS[name].supplied
                )
                echo(f"  {option}({shown})" if part else f"  {option}")


def _parts(text: str) -> list[str]:
    """What `list` takes, for the completion of shells."""
    from jaxrobust.experiment import PARTS

    return [name for name in [*PARTS, "experiments"] if name.startswith(text)]


def _grouped(part: str, names: Iterable[str]) -> dict[str, list[str]]:
    """The names of a part's options under their headings; those in no group come last."""
    from jaxrobust.objectives import GROUPS

    groups = GROUPS if part == "objective" else {}
    found = {heading: [n for n in group if n in names] for heading, group in groups.items()}
    return found | {"": [n for n in names if not any(n in group for group in groups.values())]}


@cli.command()
@EXPERIMENT
@SET
@TRUST
@TOPOLOGY
@BUDGET
@click.option("--fid", type=Number(), help="FID of the generated images, with --budget [1.65].")
@click.option("--attack/--no-attack", default=True, help="Also plan the attack of the evaluation.")
@click.option("--largest-batch", is_flag=True, help="Also search for the largest batch that fits.")
@click.option(
    "--generated-size",
    type=click.IntRange(min=1),
    help="Number of generated images, if their file is missing.",
)
@JSON
def plan(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    topologies: tuple[str, ...],
    budget: tuple[float, str] | None,
    fid: float | None,
    path: pathlib.Path | None,
    **settings: Any,
) -> None:
    """Compile an EXPERIMENT for TPUs: does it fit, and how fast can it be?

    This needs no TPU and no data. pip install 'jaxrobust[tpu]' brings the compiler. With --budget,
    print the compute-optimal network and number of images by the scaling law of adversarial
    training; that needs the compiler only with --topology.

    \b
    jaxrobust plan cifar10_trades_preact18 --topology v5e:2x2
    jaxrobust plan cifar10_score_wrn28 --topology v5e:16x16 --generated-size 1000000
    """
    _check_plan(topologies, budget)
    without_a_tpu()
    from jaxrobust.commands import plan_experiment, plan_for_budget

    config = one_experiment(experiment, assignments)
    if config.generated is None:
        refuse("generated_size", because=f"belongs to generated images, and {config.name} has none")
    if budget is None:
        plan_experiment(config, topologies[0], path=path, say=echo, **settings)
        return
    options = {"fid": fid} if fid is not None else {}
    size = settings["generated_size"]
    plan_for_budget(config, budget, topologies, generated_size=size, path=path, say=echo, **options)


def _check_plan(topologies: tuple[str, ...], budget: tuple[float, str] | None) -> None:
    """Refuses options of `plan` that do not go together."""
    context = click.get_current_context()
    if budget is not None:
        refuse("attack", "largest_batch", because="does not go with --budget")
    else:
        refuse("fid", because="belongs to --budget")
        if not topologies:
            raise click.UsageError("Missing option '--topology', or '--budget'.", context)
        if len(topologies) > 1:
            raise click.UsageError("several --topology belong to --budget", context)


lay_out(cli)


def main(command: click.Command = cli) -> None:
    """Entry point. Errors end in one line: 2 for mistakes of the user, else 1 (JAXROBUST_DEBUG=1
    shows the traceback); an interrupted run ends with 128 + the signal's number."""
    set_up_compilation_cache()
    hush_orbax()
    plain_warnings()
    repeat_ignored_interrupts()
    try:
        code = command.main(standalone_mode=False)
        end_at_once_on_interrupt()
    except (Exception, KeyboardInterrupt) as error:
        end(error)
    if isinstance(code, int) and code:  # of a command that asked to exit
        sys.exit(code)


if __name__ == "__main__":
    main()
