"""The `jaxrobust` command."""

import json
import os
import pathlib
import sys
from dataclasses import replace
from typing import Any, Literal

import click

# JAX and the library are imported inside the commands: `--help` and a typing error answer at
# once.

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
    help="The folder to write to (default: runs/NAME).",
)
QUIET = click.option("--quiet", is_flag=True, help="No progress bars.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="jaxrobust")
def cli() -> None:
    """The trade-off between accuracy and robustness, in JAX."""


@cli.command()
@EXPERIMENT
@SET
@WORKDIR
@click.option("--resume", is_flag=True, help="Continue from the latest readable checkpoint.")
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard events.")
@QUIET
def train(
    experiment: pathlib.Path,
    assignments: tuple[str, ...],
    workdir: pathlib.Path | None,
    resume: bool,
    tensorboard: bool,
    quiet: bool,
) -> None:
    """Train the EXPERIMENT file; evaluate it afterwards with `jaxrobust evaluate`."""
    from jaxrobust.experiment import Experiment, load, override
    from jaxrobust.training import train

    config = load(experiment)
    if not isinstance(config, Experiment):
        raise ValueError(f"{experiment} is a trade-off: run it with `jaxrobust tradeoff`")
    config = override(config, assignments)
    folder = workdir or pathlib.Path("runs") / config.name
    trained = train(
        config, folder, resume=resume, quiet=quiet, tensorboard=tensorboard, say=click.echo
    )
    click.echo(f"trained {config.name} to step {int(trained.state.step)} in {folder}")


@cli.command()
@click.argument("run", type=click.Path(path_type=pathlib.Path))
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Best by validation on held-out training data, or the last.",
)
@click.option("--steps", type=click.IntRange(min=1), help="PGD steps (default: the experiment's).")
@click.option("--restarts", type=click.IntRange(min=1), help="Random starts of each attack.")
@QUIET
def evaluate(
    run: pathlib.Path,
    checkpoint: Literal["best", "last"],
    steps: int | None,
    restarts: int | None,
    quiet: bool,
) -> None:
    """Attack the network of a RUN folder on its test set."""
    from jaxrobust.commands import evaluate_run
    from jaxrobust.training import read_config

    given = {"steps": steps, "restarts": restarts}
    settings = replace(
        read_config(run).evaluation, **{k: v for k, v in given.items() if v is not None}
    )
    row = evaluate_run(run, checkpoint=checkpoint, evaluation=settings, quiet=quiet, say=click.echo)
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

    --set applies to all members.
    """
    from jaxrobust.commands import run_tradeoff
    from jaxrobust.experiment import Experiment, Tradeoff, load, override

    config = load(experiment)
    if isinstance(config, Experiment):
        config = Tradeoff(name=config.name, members=(config,))
    members = tuple(override(member, assignments) for member in config.members)
    config = replace(config, members=members)
    folder = workdir or pathlib.Path("runs") / config.name
    run_tradeoff(config, folder, quiet=quiet, say=click.echo)


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


def _print_figures(row: dict[str, Any]) -> None:
    from jaxrobust.evaluation import Accuracy

    click.echo(f"{row['experiment']['name']}, step {row['checkpoint']['step']}, {row['threat']}")
    figures = {"clean": row["clean_accuracy"], **row["robust_accuracy"]}
    for name, values in (figures | {"worst case": row["worst_case_accuracy"]}).items():
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
    from jaxrobust.training import CheckpointError, Interrupted, NonFiniteLossError

    if os.environ.get("JAXROBUST_DEBUG"):
        raise error
    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        sys.exit(128 + error.signal_number)
    if isinstance(error, ValueError | CheckpointError | json.JSONDecodeError | OSError):
        click.echo(f"jaxrobust: {error}", err=True)
        sys.exit(2)
    if isinstance(error, NonFiniteLossError):
        click.echo(f"jaxrobust: {error}", err=True)
        sys.exit(1)
    raise error


if __name__ == "__main__":
    main()
