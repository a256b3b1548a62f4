"""The subcommand `jaxrobust evaluate-mixed`; JAX is imported when it runs."""

import pathlib
from typing import Any

import click

from jaxrobust.cli_options import QUIET, SEED, TRUST, Number, attack_list, echo, radius, refuse


@click.command("evaluate-mixed")
@click.argument("std")
@click.argument("rob")
@click.option("--std-network", help="STD is a file of PyTorch weights of this network.")
@click.option("--rob-network", help="Likewise ROB: a network, or an entry of RobustBench.")
@click.option("--alpha", type=Number(0, 1), help="Weight of the robust base, in [0, 1].")
@click.option(
    "--std-scale",
    type=Number(positive=True),
    default=1.0,
    show_default=True,
    help="With --alpha: factor on STD's logits.",
)
@click.option(
    "--rob-scale",
    type=Number(positive=True),
    default=1.0,
    show_default=True,
    help="With --alpha: factor on ROB's logits.",
)
@click.option("--smoothing", help="A published Adaptive Smoothing: cifar10-edm, ...")
@click.option("--network", help="With --smoothing: the mixing network's file of weights.")
@click.option("--nuts", help="A published MixedNUTS: cifar10, cifar100 or imagenet.")
@click.option("--data", default="cifar10", show_default=True, help="The data set.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="PATH=VALUE",
    help="Arguments: --set std.width=4 --set rob.threat=l2 --set data.path=...",
)
@click.option(
    "--attack",
    type=click.Choice(["pgd", "autoattack", "adaptive"]),
    default="pgd",
    show_default=True,
    help="Adaptive: AutoAttack by a surrogate's gradients, or evading the mixing network.",
)
@click.option("--norm", type=click.Choice(["linf", "l2", "l1"]), default="linf", show_default=True)
@click.option("--eps", default="8/255", show_default=True, help="Radius in image units.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="PGD's.")
@click.option("--n", type=click.IntRange(min=1), help="The first N test images only.")
@click.option(
    "--weight",
    type=Number(),
    default=0.2,
    show_default=True,
    help="Adaptive, with --smoothing: weight of the mixing network's output in the loss.",
)
@click.option("--version", default="standard", show_default=True, help="AutoAttack's version.")
@click.option("--attacks", help="AutoAttack, version custom: apgd-ce,apgd-t,...")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of all noise.")
@click.option("--batch-size", type=click.IntRange(min=1), default=128, show_default=True)
@click.option(
    "--workdir",
    type=click.Path(path_type=pathlib.Path),
    default="runs/mixed",
    show_default=True,
    help="Where the row and the report go.",
)
@TRUST
@QUIET
def evaluate_mixed(
    std: str,
    rob: str,
    std_network: str | None,
    rob_network: str | None,
    alpha: float | None,
    data: str,
    assignments: tuple[str, ...],
    attacks: str | None,
    workdir: pathlib.Path,
    quiet: bool,
    **options: Any,
) -> None:
    """Attack an accurate network STD mixed with a robust one ROB.

    Each is the folder of a run, or a file of PyTorch weights with the name of its network.

    \b
    jaxrobust evaluate-mixed runs/std runs/rob --data digits --alpha 0.8 --eps 0.1
    jaxrobust evaluate-mixed bit.pt wang.pt --std-network bit_resnet \\
        --rob-network Wang2023Better_WRN-70-16 --alpha 0.9 --attack autoattack
    """
    _refuse_without_effect(alpha, options)
    from jaxrobust.commands import MixedEvaluation, Mixture, assigned, evaluate_mixed
    from jaxrobust.spec import use

    parts = assigned(assignments)
    sources: dict[str, Any] = {"std": std, "rob": rob}
    for name, network in (("std", std_network), ("rob", rob_network)):
        if network is not None:
            sources[name] = {"weights": sources[name], "network": network, **parts[name]}
        elif parts[name]:
            raise ValueError(f"--set {name}.NAME=value needs --{name}-network")
    how = {n: options.pop(n) for n in ("std_scale", "rob_scale", "smoothing", "network", "nuts")}
    options["eps"] = radius(options["eps"], options["norm"])
    chosen = attack_list(options["version"], attacks, options["norm"])
    evaluate_mixed(
        Mixture(**sources, alpha=alpha, **how),
        use(data, **parts["data"]),
        workdir,
        evaluation=MixedEvaluation(attacks=chosen, **options),
        quiet=quiet,
        say=echo,
    )


def _refuse_without_effect(alpha: float | None, options: dict[str, Any]) -> None:
    """Refuses the options that the chosen mixture and attack do not have."""
    attack, smoothing = options["attack"], options["smoothing"] is not None
    if alpha is None:
        refuse("std_scale", "rob_scale", because="belongs to --alpha")
    if not smoothing:
        refuse("network", because="belongs to --smoothing")
    if attack != "pgd":
        refuse("steps", because=f"belongs to --attack pgd, not to --attack {attack}")
    else:
        refuse(
            "version", "attacks", because="belongs to --attack autoattack or adaptive, not to pgd"
        )
    if attack != "adaptive" or not smoothing:
        refuse("weight", because="belongs to --attack adaptive on a mixture by --smoothing")
    if attack == "adaptive" and smoothing and options["version"] != "custom":
        refuse("version", because="must be custom here: APGD's attacks alone can evade the network")
