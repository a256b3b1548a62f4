"""What AutoAttack runs, in which order: versions as lists of work items."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxrobust.inputs import InputError
from jaxrobust.typing import NORMS, Norm

ATTACKS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")
VERSIONS: dict[str, tuple[str, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}


@dataclass(frozen=True)
class AttackSettings:
    """What is static of one attack: a part of the compiled program."""

    attack: str
    norm: Norm
    loss: str | None = None  # what APGD and Square maximise; FAB has none
    steps: int = 100
    restarts: int = 1  # within one item: FAB's noise depends on what its earlier runs found
    eot: int = 1
    eps_schedule: bool = False
    stochastic: bool = False


class WorkItem(NamedTuple):
    """The smallest piece that is run, stored and resumed.

    Attributes:
      settings: of the attack.
      restart: number of the random start.
      rank: rank of the target class by clean logits (2 is the runner-up); 0 for untargeted.
    """

    settings: AttackSettings
    restart: int
    rank: int

    @property
    def name(self) -> str:
        """For the progress bar: `apgd-t, target 3`."""
        target = f", target {self.rank - 1}" if self.rank else ""
        return self.settings.attack + target + (f", restart {self.restart}" if self.restart else "")


class Protocol(NamedTuple):
    """A whole evaluation.

    Attributes:
      version: "standard", "plus", "rand" or "custom".
      items: the work in order.
      deviations: where and why this is not the published AutoAttack; empty if it is.
    """

    version: str
    items: tuple[WorkItem, ...]
    deviations: tuple[str, ...]

    def attacks(self) -> list[str]:
        """The attacks' names in order."""
        return list(dict.fromkeys(item.settings.attack for item in self.items))


def protocol(
    version: str,
    *,
    norm: Norm,
    classes: int,
    attacks: tuple[str, ...] | None = None,
    steps: int = 100,
    queries: int = 5000,
    stochastic: bool = False,
) -> Protocol:
    """The work items of a version for a norm and a number of classes.

    Args:
      version: "standard", "plus", "rand", or "custom" with `attacks`.
      norm: "linf", "l2" or "l1".
      classes: number of classes; fewer than ten shorten the list of targets.
      attacks: names for "custom", each with one restart and all targets.
      steps: of APGD and FAB; other than 100 is a deviation.
      queries: of Square; other than 5000 is a deviation.
      stochastic: the model takes keys; gradients are then averaged over 20 passes in "rand".

    Returns:
      `Protocol`.

    Raises:
      ValueError: for an unknown version, norm or attack, or both a version and a list.
    """
    names = _names(version, norm, attacks)
    deviations = []
    if attacks is not None:
        deviations.append(f"custom list of attacks: {', '.join(names)}")
    if steps != 100:
        deviations.append(f"{steps} iterations of APGD and FAB in place of 100")
    if queries != 5000:
        deviations.append(f"{queries} queries of Square in place of 5000")
    items: list[WorkItem] = []
    for name in names:
        settings = AttackSettings(
            attack=name,
            norm=norm,
            loss=_loss(name, classes),
            steps=queries if name == "square" else steps,
            restarts=5 if version == "plus" and name == "fab" else 1,
            eot=20 if version == "rand" else 1,
            eps_schedule=norm == "l1" and version == "standard" and name.startswith("apgd"),
            stochastic=stochastic,
        )
        deviations += _few_classes(name, settings, classes, _targets(name, norm, version))
        ranks = range(2, min(_targets(name, norm, version), classes - 1) + 2)
        for rank in ranks if name.endswith("-t") else (0,):
            for restart in range(_restarts(name, norm, version)):
                items.append(WorkItem(settings, restart, rank))
    return Protocol(version, tuple(items), tuple(deviations))


def _names(version: str, norm: str, attacks: tuple[str, ...] | None) -> tuple[str, ...]:
    if norm not in NORMS:
        raise InputError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    if attacks is not None:
        if version != "custom":
            raise InputError(
                f"attacks belong to version 'custom'; version {version!r} has its own list"
            )
        for name in attacks:
            if name not in ATTACKS:
                raise InputError(f"attack {name!r} is unknown; choose from {', '.join(ATTACKS)}")
        if not attacks or len(set(attacks)) != len(attacks):
            raise InputError(f"attacks must be different names, at least one; got {attacks}")
        return tuple(attacks)
    if version not in VERSIONS:
        known = ", ".join([*VERSIONS, "custom (with a list of attacks)"])
        raise InputError(f"version {version!r} is unknown; choose from {known}")
    return VERSIONS[version]


def _loss(name: str, classes: int) -> str | None:
    """The loss of an attack; DLR needs three classes, its targeted form four."""
    if name.startswith("fab"):
        return None
    if name == "square":
        return "margin"
    if name == "apgd-ce":
        return "ce"
    if name == "apgd-t":
        return "dlr_targeted" if classes >= 4 else "margin_targeted"
    return "dlr" if classes >= 3 else "margin"


def _targets(name: str, norm: str, version: str) -> int:
    return 5 if name == "apgd-t" and norm == "l1" and version == "standard" else 9


def _restarts(name: str, norm: str, version: str) -> int:
    if version == "plus" and name in ("apgd-ce", "apgd-dlr"):
        return 5
    if version == "standard" and norm == "l1" and name == "apgd-ce":
        return 5
    return 1


def _few_classes(name: str, settings: AttackSettings, classes: int, targets: int) -> list[str]:
    """What the reference, which fails on few classes, does not define."""
    found = []
    if name.endswith("-t") and targets > classes - 1:
        found.append(f"{name}: {classes - 1} targets in place of {targets} ({classes} classes)")
    if name.startswith("apgd") and str(settings.loss).startswith("margin"):
        found.append(f"{name}: margin loss in place of DLR ({classes} classes)")
    return found
