"""The stages of a fast verdict: effective attacks within a fifth of AutoAttack's passes."""

from typing import Any

from jaxrobust.attacks import APGD, CR, FAB, MALT, PMA, Attack, Square
from jaxrobust.evaluation._protocol import Protocol, WorkItem
from jaxrobust.threats import norm_of

CANDIDATES = 9  # classes that MALT ranks; each is a backward pass


def verdict_plan(threat: Any, *, classes: int) -> Protocol:
    """The stages for the ball of a norm.

    An example that survives them all takes at most a fifth of the standard AutoAttack's passes.

    Square comes last. It is included because it finds examples that the others miss if gradients
    are masked.

    Args:
      threat: the ball.
      classes: number of classes of the network.

    Returns:
      `Protocol`, each stage an item.
    """
    norm = norm_of(threat)
    schedule = norm == "l1"
    loss = "dlr_targeted" if classes >= 4 else "margin_targeted"
    targeted = APGD(threat=threat, loss=loss, steps=100, eps_schedule=schedule)
    stages: dict[str, Attack] = {}
    if norm == "linf":
        stages["cr"] = CR(threat=threat, steps=60, targets=2, restarts=1)
        stages["pma"] = PMA(threat=threat, steps=40)
    else:
        stages["apgd-ce"] = APGD(threat=threat, steps=20, eps_schedule=schedule)
    if norm == "l2":  # boundaries that masked gradients do not show
        stages["fab-malt"] = MALT(attack=FAB(threat=threat, steps=60), targets=4, candidates=4)
    stages["apgd-malt"] = MALT(attack=targeted, targets=3, candidates=CANDIDATES)
    stages["square"] = Square(threat=threat, queries=400 if norm == "l2" else 850)
    items = [WorkItem(name, n, attack, 0, 0) for n, (name, attack) in enumerate(stages.items())]
    return Protocol("verdict", tuple(items), ())
