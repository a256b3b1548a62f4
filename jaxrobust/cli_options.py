"""Options that several subcommands share; nothing here needs JAX."""

import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from jaxrobust import shipped


class ExperimentFile(click.Path):
    """An experiment file, or the name of one that comes with the library."""

    def __init__(self) -> None:
        super().__init__(path_type=pathlib.Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The names that come with the library, then files."""
        names = [
            CompletionItem(name, help=entry.title)
            for name, entry in shipped.experiments().items()
            if name.startswith(incomplete)
        ]
        return names + super().shell_complete(ctx, param, incomplete)


EXPERIMENT = click.argument("experiment", type=ExperimentFile())
SET = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PATH=VALUE",
    help="Override a setting: --set objective.beta=3 --set threat.eps=8/255",
)
TRUST_VARIABLE = "JAXROBUST_TRUST"


def _trust(context: click.Context, param: click.Parameter, packages: tuple[str, ...]) -> None:
    """Adds to the packages of the environment variable, until the command ends."""
    if not packages:
        return
    from jaxrobust.spec import trusted

    trusted(packages)
    before = os.environ.get(TRUST_VARIABLE)
    os.environ[TRUST_VARIABLE] = ",".join([*packages, before or ""])

    def restore() -> None:
        os.environ.pop(TRUST_VARIABLE, None)
        if before is not None:
            os.environ[TRUST_VARIABLE] = before

    context.call_on_close(restore)


TRUST = click.option(
    "--trust",
    multiple=True,
    metavar="PACKAGE",
    expose_value=False,
    callback=_trust,
    help="Package whose code the stored configuration of a run may import and call. May be given "
    "several times.",
)
CHECKPOINT = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Best by validation on held-out training data, or the last.",
)


def workdir_option(more: str = "") -> Callable:
    """The option for the folder of the results.

    Args:
      more: what the command's help adds.

    Returns:
      The decorator of a command.
    """
    return click.option(
        "--workdir",
        type=click.Path(path_type=pathlib.Path),
        help=f"Folder to write to (default: runs/NAME){more}.",
    )


QUIET = click.option(
    "--quiet", is_flag=True, help="No progress bars, and no lines about progress in a log."
)
JSON = click.option(
    "--json",
    "path",
    type=click.Path(path_type=pathlib.Path),
    help="Also write the rows to this file.",
)


def count_option(name: str, default: int, help_text: str | None = None) -> Callable:
    """An option that takes a positive integer.

    Args:
      name: such as "--steps".
      default: shown in the help.
      help_text: of the option.

    Returns:
      The decorator of a command.
    """
    kind = click.IntRange(min=1)
    return click.option(name, type=kind, default=default, show_default=True, help=help_text)


TOPOLOGY = click.option(
    "--topology",
    "topologies",
    multiple=True,
    metavar="CHIP:SHAPE",
    help="Chip (v4, v5e, v5p or v6e) and the number of chips along each axis: v5e:16x16, v4:2x2x4. "
    "Needed without --budget; with it, it may be given several times.",
)
RUNNER = click.option(
    "--runner",
    type=click.Choice(["shard_map", "pmap"]),
    default="shard_map",
    show_default=True,
    help="How the step runs on all devices. The results are the same.",
)
PROCESS_OPTIONS = (
    click.option(
        "--distributed",
        is_flag=True,
        help="Join several processes, also where no TPU pod, Slurm or Kubernetes is recognised.",
    ),
    click.option(
        "--coordinator",
        metavar="HOST:PORT",
        help="Address where process 0 listens, if the cluster is not recognised.",
    ),
    click.option(
        "--processes",
        type=click.IntRange(min=1),
        help="Number of processes, if the cluster is not recognised.",
    ),
    click.option(
        "--process-id",
        type=click.IntRange(min=0),
        help="Number of this process, from 0, if the cluster is not recognised.",
    ),
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


class Number(click.ParamType):
    """A finite number, or a fraction such as 8/255, in a range.

    Args:
      low: the least.
      high: the largest.
      positive: whether `low` itself is excluded.
    """

    name = "number"

    def __init__(self, low: float = 0.0, high: float = math.inf, *, positive: bool = False) -> None:
        self._low, self._high, self._positive = low, high, positive

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        found = _number(value)
        inside = math.isfinite(found) and self._low <= found <= self._high
        if inside and not (self._positive and found == self._low):
            return found
        option = param.opts[0] if param is not None else "the value"
        bound = f"a finite number {'above' if self._positive else 'of at least'} {self._low:g}"
        if math.isfinite(self._high):
            bound = f"in {'(' if self._positive else '['}{self._low:g}, {self._high:g}]"
        raise click.UsageError(f"{option} must be {bound}, got {value!r}", ctx)


def _number(value: Any) -> float:
    """A number or a fraction; NaN for anything else."""
    above, slash, below = str(value).partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError, OverflowError):
        return math.nan


class Budget(click.ParamType):
    """A number of operations, or of chip-hours: "1e21", "1e21 FLOP", "500 chip-hours"."""

    name = "budget"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, str]:
        """The number, and "FLOP" or "chip-hours"."""
        if isinstance(value, tuple):
            return value
        text = str(value).strip().lower()
        unit = "FLOP"
        for ending in ("chip-hours", "chip-hour", "flops", "flop"):
            if text.endswith(ending):
                text = text.removesuffix(ending).strip()
                unit = "chip-hours" if ending.startswith("chip") else "FLOP"
                break
        found = _number(text)
        if math.isfinite(found) and found > 0:
            return found, unit
        raise click.UsageError(
            "--budget must be a finite number above 0, of operations or of chip-hours "
            f"(1e21, or '500 chip-hours'), got {value!r}",
            ctx,
        )


BUDGET = click.option(
    "--budget",
    type=Budget(),
    metavar="FLOPS|chip-hours",
    help="Operations of a whole training (1e21), or '500 chip-hours' on the slice of --topology: "
    "prints the network and the number of images that make the most of them.",
)
SEED = click.IntRange(min=0, max=2**32 - 1)  # two seeds beyond would be the same to JAX


def given(*names: str) -> list[str]:
    """The options among these that the user gave, also with the default's value.

    Args:
      *names: of parameters of the current command.

    Returns:
      The options as they are written.
    """
    context = click.get_current_context()
    sources = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return [
        max(param.opts, key=len)
        for param in context.command.get_params(context)
        if param.name in names and context.get_parameter_source(param.name) in sources
    ]


def refuse(*names: str, because: str) -> None:
    """Refuses options that would have no effect.

    Args:
      *names: of parameters of the current command.
      because: what they belong to, after their names: "belongs to --attack pgd".

    Raises:
      UsageError: if one of them was given.
    """
    found = given(*names)
    if found:
        raise click.UsageError(f"{', '.join(found)} {because}", click.get_current_context())


def words(option: str, text: str) -> list[str]:
    """The words of a list with commas.

    Args:
      option: for the message.
      text: the list.

    Returns:
      At least one word, none of them empty.

    Raises:
      UsageError: for anything else.
    """
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise click.UsageError(f"{option} must be a list with commas between, got {text!r}")
    return found


def attack_list(version: str, attacks: str | None, norm: str) -> tuple[str, ...] | None:
    """The attacks of version custom; checks the version and the names.

    Args:
      version: of `--version`.
      attacks: of `--attacks`.
      norm: of the ball.

    Returns:
      The names, or `None` for a version that has its own.

    Raises:
      ValueError: for an unknown version or attack.
      UsageError: if version and list do not go together.
    """
    from jaxrobust import threats
    from jaxrobust.evaluation import protocol

    if attacks is not None and version != "custom":
        raise click.UsageError(f"--attacks belongs to --version custom, not to {version}")
    if attacks is None and version == "custom":
        raise click.UsageError("--version custom needs a list: --attacks apgd-ce,apgd-t,...")
    names = None if attacks is None else tuple(words("--attacks", attacks))
    protocol(version, threat=getattr(threats, norm)(0.0), classes=10, attacks=names)
    return names


def autoattack_options(
    experiment: Any,
    *,
    norm: str | None,
    eps: str | None,
    eps_sweep: str | None,
    version: str,
    attacks: str | None,
    **options: Any,
) -> dict[str, Any]:
    """The options of AutoAttack; norm and eps default to the run's own threat."""
    from jaxrobust import threats

    threat, built = experiment.threat, experiment.build("threat")
    own = threats.norm_of(built)
    if norm is None:
        if own is None:
            raise ValueError(f"--norm must be given: the run's threat {threat.target} has none")
        norm = own
    if eps is not None and eps_sweep is not None:
        raise ValueError("--eps and --eps-sweep exclude each other")
    if eps_sweep is not None:
        radii = [radius(text, norm, "--eps-sweep") for text in words("--eps-sweep", eps_sweep)]
        if len({f"{eps:.6g}" for eps in radii}) < len(radii):
            raise ValueError(
                f"--eps-sweep must have radii that differ in six digits, got {eps_sweep!r}"
            )
    elif eps is not None:
        radii = [radius(eps, norm)]
    elif norm == own:
        # As it was given: in float32, 8/255 is another number.
        radii = [radius(threat.kwargs.get("eps", built.eps), norm, "the run's threat.eps")]
    else:
        raise ValueError(f"--eps must be given: the run's threat is {threat.target}, not {norm}")
    chosen = attack_list(version, attacks, norm)
    return {"norm": norm, "eps": radii, "version": version, "attacks": chosen, **options}


def radius(text: Any, norm: str, option: str = "--eps") -> float:
    """A radius in image units.

    Args:
      text: a number or a fraction.
      norm: of the ball: beyond 1 an l_inf ball holds every image.
      option: for the message.

    Returns:
      The radius.

    Raises:
      ValueError: for anything else.
    """
    found = _number(text)
    if math.isnan(found) and str(text).strip().lower().lstrip("+-") != "nan":
        raise ValueError(f"{option} must be a number or a fraction such as 8/255, got {text!r}")
    if not (math.isfinite(found) and found >= 0 and (norm != "linf" or found <= 1)):
        upper = " and at most 1" if norm == "linf" else ""
        raise ValueError(
            f"{option} must be a radius in image units (8/255, not 8), finite, at least 0{upper}, "
            f"got {text!r}"
        )
    return found


def echo(line: str = "") -> None:
    """Prints a line at once; a reader that has gone, or a full disk, costs nothing but the line.

    The exit code becomes 1 if anything but a reader that has seen enough (`| head`) is the reason.

    Args:
      line: without its end.
    """
    try:
        click.echo(line)
    except BrokenPipeError:
        silence()
    except OSError as error:
        silence()
        click.echo(f"jaxrobust: standard output: {error.strerror}", err=True)
        context = click.get_current_context(silent=True)
        if context is not None:
            context.find_root().call_on_close(lambda: sys.exit(1))


def silence() -> None:
    """Nobody reads standard output any more: what is still written goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file
        sys.stdout = os.fdopen(nowhere, "w")


def one_experiment(experiment: pathlib.Path, assignments: tuple[str, ...]) -> Any:
    """The experiment of a file, overridden."""
    from jaxrobust.experiment import Experiment, load, override

    config = load(experiment)
    if not isinstance(config, Experiment):
        raise ValueError(f"{experiment} is a trade-off: run it with `jaxrobust tradeoff`")
    return override(config, assignments)
