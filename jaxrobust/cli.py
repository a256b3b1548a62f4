"""The `jaxrobust` command."""

import json
import os
import pathlib
import sys
import traceback
from dataclasses import replace
from typing import Any, Literal

import click

from jaxrobust.cli_bench import bench
from jaxrobust.cli_mixed import evaluate_mixed
from jaxrobust.cli_options import (
    EXPERIMENT,
    JSON,
    QUIET,
    RUNNER,
    SET,
    TOPOLOGY,
    WORKDIR,
    autoattack_options,
    join,
    one_experiment,
    process_options,
    without_a_tpu,
)

# JAX and the library are imported inside the commands: `--help` and a typing error answer at
# once.


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jaxrobust")
def cli() -> None:
    """The trade-off between accuracy and robustness, in JAX."""


cli.add_command(evaluate_mixed)
cli.add_command(bench)


@cli.command()
@EXPERIMENT
@SET
@WORKDIR
@click.option("--resume", is_flag=True, help="Continue from the latest readable checkpoint.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events.")
@RUNNER
@process_options
@QUIET
def train(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    workdir: pathlib.Path | None,
    **settings: Any,
) -> None:
    """Train the EXPERIMENT file; evaluate it afterwards with `jaxrobust evaluate`."""
    join(settings)  # before all else of JAX
    from jaxrobust.processes import is_first
    from jaxrobust.training import train

    config = one_experiment(experiment, assignments)
    folder = workdir or pathlib.Path("runs") / config.name
    trained = train(config, folder, say=click.echo, **settings)
    if is_first():
        click.echo(f"trained {config.name} to step {int(trained.state.step)} in {trained.workdir}")


@cli.command()
@click.argument("run", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Best by validation on held-out training data, or the last.",
)
@click.option(
    "--attack",
    type=click.Choice(["pgd", "autoattack"]),
    default="pgd",
    show_default=True,
    help="PGD on cross-entropy and margin in the run's own threat, or AutoAttack.",
)
@click.option("--steps", type=click.IntRange(min=1), help="PGD steps (default: the experiment's).")
@click.option("--restarts", type=click.IntRange(min=1), help="PGD: random starts.")
@click.option("--degrees", type=float, help="PGD: also rotations up to so many degrees,")
@click.option("--shift-px", type=float, help="and shifts up to so many pixels.")
@click.option("--norm", type=click.Choice(["linf", "l2", "l1"]), help="AutoAttack: the norm.")
@click.option("--eps", help="AutoAttack: radius in image units, such as 8/255.")
@click.option("--eps-sweep", help="AutoAttack: several radii, 2/255,4/255,8/255; draws the curve.")
@click.option("--version", default="standard", show_default=True, help="AutoAttack's version.")
@click.option("--attacks", help="AutoAttack, version custom: apgd-ce,apgd-t,...")
@click.option("--n", type=click.IntRange(min=1), help="AutoAttack: the first N test images only.")
@click.option("--seed", type=int, default=0, show_default=True, help="AutoAttack: of all noise.")
@click.option("--individual", is_flag=True, help="AutoAttack: each attack on all points.")
@process_options
@QUIET
def evaluate(
    run: pathlib.Path,
    checkpoint: Literal["best", "last"],
    attack: str,
    steps: int | None,
    restarts: int | None,
    degrees: float | None,
    shift_px: float | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Attack the network of a RUN folder on its test set.

    \b
    jaxrobust evaluate runs/x --steps 40
    jaxrobust evaluate runs/x --degrees 30 --shift-px 3
    jaxrobust evaluate runs/x --attack autoattack --norm linf --eps 8/255
    """
    join(options)  # before all else of JAX
    from jaxrobust.commands import autoattack_run, evaluate_run
    from jaxrobust.processes import is_first
    from jaxrobust.training import read_config

    experiment = read_config(run)
    if attack == "autoattack":
        chosen = autoattack_options(experiment, **options)
        autoattack_run(run, checkpoint=checkpoint, quiet=quiet, say=click.echo, **chosen)
        return
    given: dict[str, Any] = {"steps": steps, "restarts": restarts}
    given |= {"spatial_degrees": degrees, "spatial_shift_px": shift_px}
    settings = replace(experiment.evaluation, **{k: v for k, v in given.items() if v is not None})
    row = evaluate_run(run, checkpoint=checkpoint, evaluation=settings, quiet=quiet, say=click.echo)
    if is_first():
        _print_figures(row)
        click.echo(f"row: {run / 'results.jsonl'}   picture: {run / 'adversarial.png'}")


@cli.command()
@EXPERIMENT
@SET
@WORKDIR
@QUIET
def tradeoff(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    workdir: pathlib.Path | None,
    quiet: bool,
) -> None:
    """Train and attack every member of the EXPERIMENT file and draw the trade-off.

    --set applies to all members; --set tradeoff.seeds=[0] to the trade-off itself.
    """
    from jaxrobust.commands import run_tradeoff
    from jaxrobust.experiment import Experiment, Tradeoff, load, override

    config = load(experiment)
    if isinstance(config, Experiment):
        config = Tradeoff(name=config.name, members=(config,))
    config = override(config, assignments)
    folder = workdir or pathlib.Path("runs") / config.name
    run_tradeoff(config, folder, quiet=quiet, say=click.echo)


@cli.command()
@click.argument("results", type=click.Path(path_type=pathlib.Path))
def table(results: pathlib.Path) -> None:
    """Print RESULTS (results.json of a trade-off, results.jsonl of a run) as Markdown."""
    from jaxrobust.commands import markdown_table

    click.echo(markdown_table(results))


@cli.command("list")
@click.argument("part", required=False)
def list_parts(part: str | None) -> None:
    """Show what an experiment can be made of: all parts, or one PART with its arguments."""
    import inspect

    from jaxrobust.experiment import PARTS

    if part is not None and part not in PARTS:
        raise ValueError(f"part {part!r} is unknown; choose from {', '.join(PARTS)}")
    for name in PARTS if part is None else [part]:
        click.echo(f"{name}:")
        for option, call in PARTS[name].items():
            arguments = inspect.signature(call).parameters.values()
            shown = ", ".join(
                p.name if p.default is p.empty else f"{p.name}={p.default!r}"
                for p in arguments
                if p.name != "learning_rate"
            )
            click.echo(f"  {option}({shown})" if part else f"  {option}")


@cli.command()
@EXPERIMENT
@SET
@TOPOLOGY
@click.option("--attack/--no-attack", default=True, help="Also the attack of the evaluation.")
@click.option("--largest-batch", is_flag=True, help="Also search the largest batch that fits.")
@click.option("--generated-size", type=click.IntRange(min=1), help="Images in a file not here.")
@JSON
def plan(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    topology: str,
    path: pathlib.Path | None,
    **settings: Any,
) -> None:
    """Compile the EXPERIMENT for TPUs that are not here: does it fit, how fast can it be.

    Needs no TPU and no data: pip install 'jaxrobust[tpu]' brings the compiler.
    """
    without_a_tpu()
    from jaxrobust.commands import plan_experiment

    plan_experiment(
        one_experiment(experiment, assignments), topology, path=path, say=click.echo, **settings
    )


def _print_figures(row: dict[str, Any]) -> None:
    from jaxrobust.evaluation import Accuracy

    click.echo(f"{row['experiment']['name']}, step {row['checkpoint']['step']}, {row['threat']}")
    figures = {"clean": row["clean_accuracy"], **row["robust_accuracy"]}
    figures |= {"worst case": row["worst_case_accuracy"], **row.get("spatial_accuracy", {})}
    for name, values in figures.items():
        click.echo(f"  {name:<12} {Accuracy(**values)}")


def set_up_compilation_cache() -> None:
    """Compiled programs are kept between runs, unless the user says where or that they are not.

    JAX_COMPILATION_CACHE_DIR moves the cache, JAX_ENABLE_COMPILATION_CACHE=false switches it
    off.
    """
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache / "jaxrobust" / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def main() -> None:
    """Entry point. Mistakes of the user end in one line and exit code 2, without a traceback
    (JAXROBUST_DEBUG=1 shows it); an interrupted run ends with 128 + the signal's number."""
    set_up_compilation_cache()
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _end(error)


def _end(error: Exception) -> None:
    from jaxrobust.evaluation import AttackResultError
    from jaxrobust.processes import LostProcessError, leave
    from jaxrobust.training import CheckpointError, Interrupted, NonFiniteLossError

    if os.environ.get("JAXROBUST_DEBUG"):
        raise error
    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        sys.exit(128 + error.signal_number)
    if isinstance(error, ValueError | CheckpointError | json.JSONDecodeError | OSError):
        click.echo(f"jaxrobust: {error}", err=True)
        leave(2)
    if isinstance(error, NonFiniteLossError | AttackResultError | LostProcessError):
        click.echo(f"jaxrobust: {error}", err=True)
        leave(1)
    traceback.print_exception(error)
    leave(1)


if __name__ == "__main__":
    main()
