"""The settings of the attacks that were run, as plain JSON types."""

from collections.abc import Iterable, Sequence
from typing import Any

from jaxrobust.evaluation._protocol import WorkItem
from jaxrobust.typing import Norm


def attack_settings(
    items: Sequence[WorkItem], names: Iterable[str], norm: Norm
) -> tuple[dict[str, Any], ...]:
    """The attacks of AutoAttack with their settings, restarts and targets.

    Args:
      items: the work items that were run.
      names: the attacks, in order.
      norm: the norm of the ball.

    Returns:
      One entry per attack, its name under "attack".
    """
    by_name = {name: [item for item in items if item.name == name] for name in names}
    return tuple(_attack(name, found, norm) for name, found in by_name.items())


def _attack(name: str, items: list[WorkItem], norm: Norm) -> dict[str, Any]:
    attack: Any = items[0].attack
    restarts = getattr(attack, "restarts", 1) * (1 + max(item.restart for item in items))
    return {
        "attack": name,
        "norm": norm,
        **{"eot": 1, "eps_schedule": False, "stochastic": False, **attack.settings},
        "restarts": restarts,
        "targets": len({item.rank for item in items if item.rank}),
    }


def stage_settings(items: Sequence[WorkItem]) -> tuple[dict[str, Any], ...]:
    """The stages of an evaluation with their settings.

    Args:
      items: the stages, one item each.

    Returns:
      One entry per stage, its name under "stage".
    """
    attacks: list[Any] = [item.attack for item in items]
    names = [{"stage": item.name} for item in items]
    return tuple(name | attack.settings for name, attack in zip(names, attacks, strict=True))
