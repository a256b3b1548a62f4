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
@click.option(
    "--attack",
    type=click.Choice(["pgd", "autoattack"]),
    default="pgd",
    show_default=True,
    help="PGD on cross-entropy and margin in the run's own threat, or AutoAttack.",
)
@click.option("--steps", type=click.IntRange(min=1), help="PGD steps (default: the experiment's).")
@click.option("--restarts", type=click.IntRange(min=1), help="PGD: random starts.")
@click.option("--norm", type=click.Choice(["linf", "l2", "l1"]), help="AutoAttack: the norm.")
@click.option("--eps", help="AutoAttack: radius in image units, such as 8/255.")
@click.option("--eps-sweep", help="AutoAttack: several radii, 2/255,4/255,8/255; draws the curve.")
@click.option("--version", default="standard", show_default=True, help="AutoAttack's version.")
@click.option("--attacks", help="AutoAttack, version custom: apgd-ce,apgd-t,...")
@click.option("--n", type=click.IntRange(min=1), help="AutoAttack: the first N test images only.")
@click.option("--seed", type=int, default=0, show_default=True, help="AutoAttack: of all noise.")
@click.option("--individual", is_flag=True, help="AutoAttack: each attack on all points.")
@QUIET
def evaluate(
    run: pathlib.Path,
    checkpoint: Literal["best", "last"],
    attack: str,
    steps: int | None,
    restarts: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Attack the network of a RUN folder on its test set.

    \b
    jaxrobust evaluate runs/x --steps 40
    jaxrobust evaluate runs/x --attack autoattack --norm linf --eps 8/255
    """
    from jaxrobust.commands import autoattack_run, evaluate_run
    from jaxrobust.training import read_config

    experiment = read_config(run)
    if attack == "autoattack":
        chosen = autoattack_options(experiment, **options)
        autoattack_run(run, checkpoint=checkpoint, quiet=quiet, say=click.echo, **chosen)
        return
    given = {"steps": steps, "restarts": restarts}
    settings = replace(experiment.evaluation, **{k: v for k, v in given.items() if v is not None})
    row = evaluate_run(run, checkpoint=checkpoint, evaluation=settings, quiet=quiet, say=click.echo)
    _print_figures(row)
    click.echo(f"row: {run / 'results.jsonl'}   picture: {run / 'adversarial.png'}")


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
        radii = [_radius(text) for text in (eps_sweep or eps or "").split(",")]
    elif norm == threat.name:
        radii = [threat.kwargs["eps"]]
    else:
        raise ValueError(f"--eps must be given: the run's threat is {threat.name}, not {norm}")
    if options["attacks"] is not None:
        options["attacks"] = options["attacks"].split(",")
    return {"norm": norm, "eps": radii, **options}


def _radius(text: str) -> float:
    from jaxrobust.spec import number

    try:
        return float(number(text))
    except ValueError:
        raise ValueError(
            f"--eps must be a number or a fraction such as 8/255, got {text!r}"
        ) from None


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


@cli.group()
def bench() -> None:
    """Measure speed: ratios taken side by side in one run."""


JSON = click.option(
    "--json", "path", type=click.Path(path_type=pathlib.Path), help="Also write the rows there."
)


@bench.command("attack")
@click.option("--width", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--queries", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@JSON
def bench_attack(path: pathlib.Path | None, **settings: int) -> None:
    """APGD, FAB-T and Square against the passes of the model they are made of."""
    from jaxrobust.commands import bench_attack

    bench_attack(path, **settings)


@bench.command("convolutions")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@JSON
def bench_convolutions(path: pathlib.Path | None, **settings: int) -> None:
    """Gradient steps in a loop with stock and with fast convolutions (CPU)."""
    from jaxrobust.commands import bench_convolutions

    bench_convolutions(path, **settings)


@bench.command("step")
@click.option("--objective", "objectives", multiple=True, default=("trades",), show_default=True)
@click.option("--model", default="preact_resnet18", show_default=True)
@click.option("--width", type=click.IntRange(min=1), default=16, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@JSON
def bench_step(path: pathlib.Path | None, **settings: Any) -> None:
    """Train steps against the passes they are made of; rolled against unrolled; PyTorch.

    --objective may be given several times.
    """
    from jaxrobust.commands import bench_step

    bench_step(path, **settings)


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
    from jaxrobust.evaluation import AttackResultError
    from jaxrobust.training import CheckpointError, Interrupted, NonFiniteLossError

    if os.environ.get("JAXROBUST_DEBUG"):
        raise error
    if isinstance(error, Interrupted):
        click.echo(str(error), err=True)
        sys.exit(128 + error.signal_number)
    if isinstance(error, ValueError | CheckpointError | json.JSONDecodeError | OSError):
        click.echo(f"jaxrobust: {error}", err=True)
        sys.exit(2)
    if isinstance(error, NonFiniteLossError | AttackResultError):
        click.echo(f"jaxrobust: {error}", err=True)
        sys.exit(1)
    raise error


if __name__ == "__main__":
    main()
