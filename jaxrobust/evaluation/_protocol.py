"""The versions of AutoAttack as ordered lists of bound attacks."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxrobust.attacks import APGD, FAB, Attack, Square
from jaxrobust.inputs import InputError
from jaxrobust.threats import norm_of


class WorkItem(NamedTuple):
    """The smallest unit that is run, stored and resumed.

    Attributes:
      name: the name of the attack.
      number: the number of the attack, folded into the keys of its noise.
      attack: the attack with its settings bound.
      restart: number of the random start.
      rank: rank of the target class by clean logits (2 is the runner-up); 0 for untargeted.
    """

    name: str
    number: int
    attack: Attack
    restart: int
    rank: int

    @property
    def title(self) -> str:
        """For the progress bar: `apgd-t, target 3`."""
        target = f", target {self.rank - 1}" if self.rank else ""
        return self.name + target + (f", restart {self.restart}" if self.restart else "")


class Protocol(NamedTuple):
    """A whole evaluation.

    Attributes:
      version: "standard", "plus", "rand" or "custom".
      items: the work in order.
      deviations: where and why this differs from the published AutoAttack; empty if it does not.
    """

    version: str
    items: tuple[WorkItem, ...]
    deviations: tuple[str, ...]

    def attacks(self) -> list[str]:
        """The attacks' names in order."""
        return list(dict.fromkeys(item.name for item in self.items))


class Variant(NamedTuple):
    """How a version runs an attack.

    Attributes:
      restarts: random starts, each an item.
      within: restarts in one item, because FAB's noise depends on the result of its earlier runs.
      targets: largest number of target classes, for targeted attacks.
      eot: passes over which gradients of randomised models are averaged.
      eps_schedule: whether APGD uses its schedule of radii.
    """

    restarts: int = 1
    within: int = 1
    targets: int = 9
    eot: int = 1
    eps_schedule: bool = False


class Asked(NamedTuple):
    """The settings that an attack is bound to, except its loss."""

    threat: Any
    steps: int
    queries: int
    stochastic: bool
    variant: Variant


class Recipe(NamedTuple):
    """One of AutoAttack's attacks.

    Attributes:
      bind: (settings, loss) -> the attack.
      losses: (fewest classes, loss); the first defined one is used; empty for attacks with their
        own loss.
      targeted: whether there is an item for each target class.
    """

    bind: Callable[[Asked, Any], Attack]
    losses: tuple[tuple[int, str], ...] = ()
    targeted: bool = False


def _apgd(asked: Asked, loss: str) -> APGD:
    return APGD(
        threat=asked.threat,
        loss=loss,
        steps=asked.steps,
        eot=asked.variant.eot,
        stochastic=asked.stochastic,
        eps_schedule=asked.variant.eps_schedule,
    )


def _fab(asked: Asked, _: None) -> FAB:
    return FAB(threat=asked.threat, steps=asked.steps, restarts=asked.variant.within)


def _square(asked: Asked, _: None) -> Square:
    return Square(threat=asked.threat, queries=asked.queries)


RECIPES = {  # in the order of the numbers that are folded into their keys
    "apgd-ce": Recipe(_apgd, ((0, "ce"),)),
    "apgd-dlr": Recipe(_apgd, ((3, "dlr"), (0, "margin"))),
    "apgd-t": Recipe(_apgd, ((4, "dlr_targeted"), (0, "margin_targeted")), targeted=True),
    "fab": Recipe(_fab),
    "fab-t": Recipe(_fab, targeted=True),
    "square": Recipe(_square),
}
VERSIONS: dict[str, dict[str, Variant]] = {
    "standard": dict.fromkeys(("apgd-ce", "apgd-t", "fab-t", "square"), Variant()),
    "plus": {
        "apgd-ce": Variant(restarts=5),
        "apgd-dlr": Variant(restarts=5),
        "fab": Variant(within=5),
        **dict.fromkeys(("square", "apgd-t", "fab-t"), Variant()),
    },
    "rand": dict.fromkeys(("apgd-ce", "apgd-dlr"), Variant(eot=20)),
}
SPARSE = {  # the standard version in l_1
    "apgd-ce": Variant(restarts=5, eps_schedule=True),
    "apgd-t": Variant(targets=5, eps_schedule=True),
    **dict.fromkeys(("fab-t", "square"), Variant()),
}
FOR_NORM = {("standard", "l1"): SPARSE}


def protocol(
    version: str,
    *,
    threat: Any,
    classes: int,
    attacks: tuple[str, ...] | None = None,
    steps: int = 100,
    queries: int = 5000,
    stochastic: bool = False,
) -> Protocol:
    """The work items of a version of AutoAttack for a ball and a number of classes.

    Args:
      version: "standard", "plus", "rand", or "custom" with `attacks`.
      threat: the ball of a norm.
      classes: number of classes; fewer than ten shorten the list of targets.
      attacks: names for "custom", each with one restart and all targets.
      steps: iterations of APGD and FAB; other values than 100 are a deviation.
      queries: number of queries of Square; other values than 5000 are a deviation.
      stochastic: the model takes keys; gradients are then averaged over 20 passes in "rand".

    Returns:
      `Protocol`.

    Raises:
      ValueError: for an unknown version or attack, a threat that is not the ball of a norm, both a
        version and a list, or a stochastic model with an attack that does not support it.

    Example:
      >>> from jaxrobust import evaluation, threats
      >>> plan = evaluation.protocol("standard", threat=threats.linf(8 / 255), classes=10)
      >>> plan.attacks(), len(plan.items), plan.items[1].attack.loss
      (['apgd-ce', 'apgd-t', 'fab-t', 'square'], 20, 'dlr_targeted')
    """
    variants = _variants(version, threat, attacks)
    deviations = []
    if attacks is not None:
        deviations.append(f"custom list of attacks: {', '.join(variants)}")
    if steps != 100:
        deviations.append(f"{steps} iterations of APGD and FAB in place of 100")
    if queries != 5000:
        deviations.append(f"{queries} queries of Square in place of 5000")
    items: list[WorkItem] = []
    for name, variant in variants.items():
        recipe = RECIPES[name]
        loss = next((loss for fewest, loss in recipe.losses if classes >= fewest), None)
        attack = recipe.bind(Asked(threat, steps, queries, stochastic, variant), loss)
        if stochastic and not getattr(attack, "stochastic", False):
            raise InputError(
                f"stochastic models cannot be attacked by {name}, which passes no keys"
            )
        targets = min(variant.targets, classes - 1)
        deviations += _few_classes(name, recipe, variant, classes, loss)
        number = list(RECIPES).index(name)
        for rank in range(2, targets + 2) if recipe.targeted else (0,):
            for restart in range(variant.restarts):
                items.append(WorkItem(name, number, attack, restart, rank))
    return Protocol(version, tuple(items), tuple(deviations))


def _variants(version: str, threat: Any, attacks: tuple[str, ...] | None) -> dict[str, Variant]:
    """The attacks of a version by name, in order."""
    if attacks is not None:
        if version != "custom":
            raise InputError(
                f"attacks belong to version 'custom'; version {version!r} has its own list"
            )
        for name in attacks:
            if name not in RECIPES:
                raise InputError(f"attack {name!r} is unknown; choose from {', '.join(RECIPES)}")
        if not attacks or len(set(attacks)) != len(attacks):
            raise InputError(f"attacks must be different names, at least one; got {attacks}")
        return dict.fromkeys(attacks, Variant())
    if version not in VERSIONS:
        known = ", ".join([*VERSIONS, "custom (with a list of attacks)"])
        raise InputError(f"version {version!r} is unknown; choose from {known}")
    return FOR_NORM.get((version, norm_of(threat) or ""), VERSIONS[version])


def _few_classes(
    name: str, recipe: Recipe, variant: Variant, classes: int, loss: str | None
) -> list[str]:
    """Deviations for few classes, on which the reference fails."""
    found = []
    if recipe.targeted and variant.targets > classes - 1:
        shortened = f"{classes - 1} targets in place of {variant.targets}"
        found.append(f"{name}: {shortened} ({classes} classes)")
    if recipe.losses and loss != recipe.losses[0][1]:
        found.append(f"{name}: margin loss in place of DLR ({classes} classes)")
    return found
