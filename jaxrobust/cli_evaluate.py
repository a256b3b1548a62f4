"""The subcommand `jaxrobust evaluate`; JAX is imported when it runs."""

import pathlib
from dataclasses import replace
from typing import Any, Literal

import click

from jaxrobust.cli_options import (
    QUIET,
    SEED,
    TRUST,
    Number,
    autoattack_options,
    echo,
    join,
    process_options,
    refuse,
)

PGD = ("steps", "restarts", "degrees", "shift_px")
AUTOATTACK = ("norm", "eps", "eps_sweep", "version", "attacks", "n", "seed", "individual")
BRACKET = ("norm", "eps", "eps_sweep", "n")  # of AutoAttack's options


@click.command()
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
    type=click.Choice(["pgd", "autoattack", "bracket"]),
    default="pgd",
    show_default=True,
    help="PGD on cross-entropy and margin in the run's own threat, AutoAttack, or certified bounds "
    "with attacks, which bracket the robust accuracy.",
)
@click.option("--steps", type=click.IntRange(min=1), help="PGD steps (default: the experiment's).")
@click.option("--restarts", type=click.IntRange(min=1), help="PGD: random starts.")
@click.option("--degrees", type=Number(), help="PGD: also rotations, up to this many degrees.")
@click.option("--shift-px", type=Number(), help="PGD: also shifts, up to this many pixels.")
@click.option(
    "--norm", type=click.Choice(["linf", "l2", "l1"]), help="AutoAttack, bracket: the norm."
)
@click.option("--eps", help="AutoAttack, bracket: radius in image units, 8/255.")
@click.option("--eps-sweep", help="AutoAttack, bracket: several radii, 2/255,4/255.")
@click.option("--version", default="standard", show_default=True, help="AutoAttack's version.")
@click.option("--attacks", help="AutoAttack, version custom: apgd-ce,apgd-t,...")
@click.option("--n", type=click.IntRange(min=1), help="AutoAttack, bracket: the first N images.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="AutoAttack: of all noise.")
@click.option("--individual", is_flag=True, help="AutoAttack: each attack on all points.")
@TRUST
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
    jaxrobust evaluate runs/x --attack bracket --eps-sweep 1/255,2/255 --n 100
    """
    _check_options(attack)
    join(options)  # before all else of JAX
    from jaxrobust.commands import autoattack_run, evaluate_run
    from jaxrobust.experiment import evaluators_of
    from jaxrobust.training import read_config

    experiment = read_config(run, say=lambda line: None)  # what follows reads it again, and says
    if attack == "autoattack":
        chosen = autoattack_options(experiment, **options)
        autoattack_run(run, checkpoint=checkpoint, quiet=quiet, say=echo, **chosen)
        return
    if attack == "bracket":
        found = autoattack_options(experiment, **options)
        band = _bracket(**found)
        evaluate_run(run, checkpoint=checkpoint, evaluators=(band,), quiet=quiet, say=echo)
        return
    asked: dict[str, Any] = {"steps": steps, "restarts": restarts}
    asked |= {"spatial_degrees": degrees, "spatial_shift_px": shift_px}
    settings = replace(experiment.evaluation, **{k: v for k, v in asked.items() if v is not None})
    asked_for = evaluators_of(replace(experiment, evaluation=settings))
    evaluate_run(run, checkpoint=checkpoint, evaluators=asked_for, quiet=quiet, say=echo)


def _check_options(attack: str) -> None:
    """Refuses the options of another attack."""
    if attack == "bracket":
        others = [name for name in (*PGD, *AUTOATTACK) if name not in BRACKET]
        refuse(*others, because="does not go with --attack bracket")
        return
    other = {"pgd": "autoattack", "autoattack": "pgd"}[attack]
    others = {"pgd": list(AUTOATTACK), "autoattack": list(PGD)}[attack]
    refuse(*others, because=f"belongs to --attack {other}, not to --attack {attack}")


def _bracket(*, norm: Any, eps: list[float], n: int | None, **others: Any) -> Any:
    """The evaluator of certified and attacked accuracy at these radii."""
    from jaxrobust import evaluators

    return evaluators.bracket(norm=norm, radii=tuple(sorted(set(eps))), images=n)
