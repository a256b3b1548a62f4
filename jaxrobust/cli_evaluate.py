"""The subcommand `jaxrobust evaluate`; JAX is imported when it runs."""

import pathlib
from dataclasses import replace
from typing import Any, Literal

import click
from click.core import ParameterSource

from jaxrobust.cli_options import (
    CHECKPOINT,
    QUIET,
    SEED,
    TRUST,
    Number,
    autoattack_options,
    echo,
    join,
    process_options,
    radius,
    refuse,
    words,
)

OWN = {  # attacks whose options are written here; those of all others are made of the exports
    "pgd": ("steps", "restarts", "degrees", "shift_px"),
    "autoattack": ("norm", "eps", "eps_sweep", "version", "attacks", "n", "seed", "individual"),
}


class Evaluate(click.Command):
    """The command with an option for each setting of each attack, made when it is called."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options written here, and those of the exports."""
        if not hasattr(self, "_all"):
            self._all = _with_exports(super().get_params(ctx))
        return self._all


def _with_exports(written: list[click.Parameter]) -> list[click.Parameter]:
    from jaxrobust.commands import attack_choices, option_name

    choices, known = attack_choices(), {param.name for param in written}
    for param in written:
        if param.name == "attack":
            param.type = click.Choice([*OWN, *choices])
    made = []
    for name in {n for choice in choices.values() for n in choice.options} - known:
        owners = {c.name: c.options[name] for c in choices.values() if name in c.options}
        option, flag = option_name(name), next(iter(owners.values())).kind == "flag"
        made.append(
            click.Option(
                [f"{option}/--no-{option[2:]}" if flag else option],
                type=bool if flag else _TYPES.get(next(iter(owners.values())).kind, click.STRING),
                default=None,
                help=_help(owners),
            )
        )
    place = next(i for i, param in enumerate(written) if param.name == "individual") + 1
    return [*written[:place], *sorted(made, key=lambda o: str(o.name)), *written[place:]]


def _help(owners: dict[str, Any]) -> str:
    """What an option does, for each of the attacks that have it."""
    if set(owners) - {"distances"}:  # it has the options of all minimum-norm attacks
        owners.pop("distances", None)
    texts: dict[str, list[str]] = {}
    for name, asked in owners.items():
        texts.setdefault(asked.help, []).append(name)
    return " ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())


_TYPES: dict[str, Any] = {"integer": click.INT, "number": Number()}


@click.command(cls=Evaluate)
@click.argument("run", type=click.Path(path_type=pathlib.Path))
@CHECKPOINT
@click.option(
    "--attack",
    default="pgd",
    show_default=True,
    help="pgd runs on cross-entropy and on the margin, in the run's own threat. Options of other "
    "attacks are refused. docs/autoattack.md says which attack answers which question.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Attack steps (pgd: the experiment's).")
@click.option("--restarts", type=click.IntRange(min=1), help="pgd, eps-curve, fab: random starts.")
@click.option("--degrees", type=Number(), help="pgd: also rotations, up to this many degrees.")
@click.option("--shift-px", type=Number(), help="pgd: also shifts, up to this many pixels.")
@click.option(
    "--norm",
    type=click.Choice(["linf", "l2", "l1", "l0"]),
    help="The norm (default: that of the run's threat); l0 for minimum-norm attacks only.",
)
@click.option("--eps", help="Radius in image units, such as 8/255 (default: the run's).")
@click.option("--eps-sweep", help="autoattack: several radii, 2/255,4/255,8/255; draws the curve.")
@click.option("--version", default="standard", show_default=True, help="AutoAttack's version.")
@click.option(
    "--attacks",
    help="autoattack, version custom: apgd-ce,apgd-t,... distances: ddn,fmn,...",
)
@click.option(
    "--n", type=click.IntRange(min=1), help="Attack only the first N test images; pgd takes all."
)
@click.option(
    "--seed",
    type=SEED,
    default=0,
    show_default=True,
    help="Seed of the attack's random numbers; pgd takes the run's.",
)
@click.option("--individual", is_flag=True, help="autoattack: run each attack on all points.")
@TRUST
@process_options
@QUIET
def evaluate(
    run: pathlib.Path,
    checkpoint: Literal["best", "last"],
    attack: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Attack the network of a RUN folder on its test set.

    \b
    jaxrobust evaluate runs/x --steps 40
    jaxrobust evaluate runs/x --degrees 30 --shift-px 3
    jaxrobust evaluate runs/x --attack autoattack --norm linf --eps 8/255
    jaxrobust evaluate runs/x --attack verdict --precision bfloat16
    jaxrobust evaluate runs/x --attack distances --norm l2 --radii 0.25,0.5
    jaxrobust evaluate runs/x --attack fmn --norm l1 --steps 200
    jaxrobust evaluate runs/x --attack audit --rounds 2
    jaxrobust evaluate runs/x --attack union --linf 8/255 --l2 0.5 --l1 12
    """
    from jaxrobust.commands import attack_choices, autoattack_run, evaluate_run, option_name

    choices = attack_choices()
    own = OWN[attack] if attack in OWN else tuple(choices[attack].options)
    every = {*OWN["pgd"], *OWN["autoattack"], *(n for c in choices.values() for n in c.options)}
    has = f"which has {', '.join(map(option_name, own))}" if own else "which has none"
    refuse(*every.difference(own), because=f"is not an option of --attack {attack}, {has}")
    join(options)  # before JAX looks for devices
    from jaxrobust.experiment import evaluators_of
    from jaxrobust.training import read_config

    experiment = read_config(run, say=lambda line: None)  # what follows reads it again, and says
    told: dict[str, Any] = {"checkpoint": checkpoint, "quiet": quiet, "say": echo}
    if attack == "autoattack":
        chosen = autoattack_options(experiment, **{name: options[name] for name in own})
        autoattack_run(run, **chosen, **told)
        return
    if attack == "pgd":
        names = {"degrees": "spatial_degrees", "shift_px": "spatial_shift_px"}
        asked = {names.get(n, n): options[n] for n in own if options[n] is not None}
        settings = replace(experiment.evaluation, **asked)
        asked_for = evaluators_of(replace(experiment, evaluation=settings))
    else:
        values = _values(choices[attack], options)
        asked_for = (choices[attack].make(experiment, values),)
    evaluate_run(run, evaluators=asked_for, **told)


def _values(choice: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The values of the options that were given, lists and fractions read."""
    from jaxrobust.commands import option_name

    context, found = click.get_current_context(), {}
    for name, asked in choice.options.items():
        if context.get_parameter_source(name) == ParameterSource.DEFAULT:
            continue
        value, written = options[name], option_name(name)
        if asked.kind in ("words", "numbers", "integers"):
            value = tuple(_one(asked.kind, word, written) for word in words(written, value))
        found[name] = radius(value, "", written) if name == "eps" else value
    return found


def _one(kind: str, word: str, written: str) -> Any:
    """One entry of a list."""
    if kind == "words":
        return word
    if kind == "numbers":
        return radius(word, "", written)
    if not word.isascii() or not word.isdecimal():
        raise click.UsageError(f"{written} must be integers with commas between, got {word!r}")
    return int(word)
