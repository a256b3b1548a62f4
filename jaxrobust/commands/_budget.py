"""The best use of a budget by the scaling law, as text and as JSON."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxrobust import scaling
from jaxrobust.bench import BudgetPlan, Duration, Plan, Training, budget_flops, plan, plan_budget
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Experiment, to_dict
from jaxrobust.inputs import InputError

LOSS_ONLY = (
    "The law predicts this loss and nothing else: no clean accuracy, no AutoAttack. An "
    "expected value is not a result."
)
UNITS = ("FLOP", "chip-hours")


def plan_for_budget(
    experiment: Experiment,
    budget: tuple[float, str],
    topologies: Sequence[str],
    *,
    fid: float = scaling.BASE_FID,
    generated_size: int | None = None,
    path: pathlib.Path | None,
    say: Callable[[str], None] = print,
) -> BudgetPlan:
    """Plans the best use of a budget; prints it, writes JSON.

    Args:
      experiment: whose recipe is scaled.
      budget: a number and its unit, "FLOP" or "chip-hours".
      topologies: slices that the experiment's step is compiled for, such as "v5e:16x16"; without
        any, durations are those of one chip at its peak. Chip-hours need exactly one.
      fid: the FID of the generated images.
      generated_size: number of generated images; as in `bench.plan`.
      path: the JSON file, or `None`.
      say: called with each line of output.

    Returns:
      `bench.BudgetPlan`.

    Raises:
      ValueError: if a number is out of range, there is no such slice, or the experiment's step
        does not fit there.
      TPUCompilerError: if libtpu is missing, held by another process, or fails.
    """
    amount, unit = budget
    if unit not in UNITS:
        raise InputError(f"budget: unit {unit!r} is unknown; choose from {', '.join(UNITS)}")
    if unit == "chip-hours" and len(topologies) != 1:
        raise InputError(
            "a budget in chip-hours needs one topology, because chips differ in speed; got "
            f"{len(topologies)}: write --topology v5e:4x4, or the budget in operations"
        )
    settings: dict[str, Any] = {"attack": False, "generated_size": generated_size, "say": say}
    plans: list[Plan] = [plan(experiment, topology, **settings) for topology in topologies]
    flops = budget_flops(amount, plans[0]) if unit == "chip-hours" else amount
    found = plan_budget(experiment, flops, fid=fid, plans=plans, generated_size=generated_size)
    for line in budget_lines(found):
        say(line)
    if path is not None:
        write_json(path, _as_json(found, experiment))
    return found


def budget_lines(found: BudgetPlan) -> list[str]:
    """A budget's plan as text.

    Args:
      found: the plan.

    Returns:
      Lines of text.
    """
    networks = ", ".join(f"{name} ({size / 1e6:,.3g}M)" for name, size in found.networks)
    return [
        f"{found.experiment}: the best use of {found.flops:.3g} FLOP by the scaling law",
        f"  network        {found.params / 1e6:,.4g} million parameters; "
        + (
            f"about as large: {networks}"
            if networks
            else "no wide ResNet of the published proportions"
        ),
        f"  images         {found.images / 1e6:,.4g} million seen, repetitions included",
        f"  expected loss  {found.loss:.4f}, the margin loss under attack; on the authors' line "
        f"{found.accuracy:.1%} accuracy under their margin attack",
        f"  {LOSS_ONLY}",
        _own_line(found.experiment, found.own),
        *_duration_lines(found.durations),
        "published results, nearest in size of network (clean, AutoAttack):",
        *(
            f"  {row.name}: {row.params / 1e6:,.4g}M parameters, "
            + (f"{row.images / 1e6:,.4g}M images seen" if row.images else "images seen: unknown")
            + f": {row.clean:.2f}, {row.autoattack:.2f}"
            for row in found.published
        ),
        *_law_lines(found.fid),
        *(f"  outside of the fit: {sentence}" for sentence in found.differences),
    ]


def _own_line(name: str, own: Training) -> str:
    return (
        f"{name} as it stands: {own.params / 1e6:,.4g} million parameters, {own.images / 1e6:,.4g} "
        f"million images, {own.flops:.3g} FLOP, expected loss {own.loss:.4f}"
    )


def _duration_lines(durations: Sequence[Duration]) -> list[str]:
    compiled = durations[0].compiled
    how = (
        "at the bound of the experiment's compiled step; nothing ran, real steps are slower"
        if compiled
        else "at the chips' peak; --topology compiles the experiment's step for a slice"
    )
    return [
        f"time, at least ({how}):",
        *(
            f"  {d.topology}: {d.hours:,.3g} hours, {d.chip_hours:,.3g} chip-hours "
            f"({d.flops_per_second / 1e12:,.4g} TFLOP/s)"
            for d in durations
        ),
    ]


def _law_lines(fid: float) -> list[str]:
    law = scaling.LAW
    return [
        "law (Bartoldson et al. 2024, approach 3): "
        "loss = (B / D + (Q FID)^(kappa / beta))^beta + E + epsilon log(1 + FID) + A / N^alpha",
        "  " + ", ".join(f"{name} = {value:.6g}" for name, value in law.items()),
        f"  N parameters, D images seen, FID {fid:g} of the generated images, "
        f"{scaling.FLOPS_PER_PARAMETER_AND_IMAGE} N D FLOP",
        "  fitted to TRADES with ten attack steps and generated images on CIFAR-10, l_inf 8/255, "
        "wide ResNets; other recipes, data and threats have other constants",
    ]


def _as_json(found: BudgetPlan, experiment: Experiment) -> dict[str, Any]:
    return found._asdict() | {
        "own": found.own._asdict(),
        "durations": [duration._asdict() for duration in found.durations],
        "published": [row._asdict() for row in found.published],
        "law": scaling.LAW
        | {"flops_per_parameter_and_image": scaling.FLOPS_PER_PARAMETER_AND_IMAGE},
        "ran": False,
        "note": LOSS_ONLY,
        "settings": to_dict(experiment),
        "provenance": provenance(),
    }
