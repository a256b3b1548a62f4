"""Ensembles of minimum-norm attacks, made from the bound classes that `attacks` exports."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrobust import attacks, threats
from jaxrobust.attacks import Attack
from jaxrobust.inputs import InputError, as_choice
from jaxrobust.threats import norm_of
from jaxrobust.typing import ANY_NORMS, AnyNorm

FAR = {"linf": 1.0, "l2": 1e9, "l1": 1e9, "l0": 1e9}  # radii that hold every image
ENSEMBLES = {  # in each norm those that come nearest to the smallest distances known
    "linf": ("fmn", "pdpgd", "deepfool"),
    "l2": ("ddn", "fmn", "superdeepfool"),
    "l1": ("pdpgd", "fmn"),
    "l0": ("sigma-zero", "fmn"),
}


def _classes() -> dict[str, type]:
    """The bound minimum-norm attacks by the names of their functions."""
    found = vars(attacks)
    names = {name.replace("_", ""): name for name, value in found.items() if callable(value)}
    return {
        names[name.lower()].replace("_", "-"): value
        for name, value in found.items()
        if isinstance(value, type) and getattr(value, "distances", False)
    }


MINIMUM_NORM = _classes()


def norms_of_attack(name: str) -> tuple[AnyNorm, ...]:
    """The norms that a minimum-norm attack supports.

    Args:
      name: the name of the attack, such as "fmn".

    Returns:
      At least one of "linf", "l2", "l1", "l0".

    Example:
      >>> from jaxrobust import evaluation
      >>> evaluation.norms_of_attack("deepfool")
      ('linf', 'l2')
    """
    as_choice(name, name="name", choices=tuple(MINIMUM_NORM))
    return tuple(norm for norm in ANY_NORMS if _bound(name, norm) is not None)


def minimum_norm_attacks(
    norm: AnyNorm, *, attacks: Sequence[str] | None = None, **settings: Any
) -> dict[str, Attack]:
    """Minimum-norm attacks under the names that results use, as `distances` takes them.

    Args:
      norm: "linf", "l2", "l1" or "l0".
      attacks: some of "fmn", "ddn", "pdpgd", "sigma-zero", "deepfool", "superdeepfool", "fab", if
        they support the norm. Default: in linf FMN, PDPGD and DeepFool; in l2 DDN, FMN and
        SuperDeepFool; in l1 PDPGD and FMN; in l0 sigma-zero and FMN.
      **settings: settings of the bound classes, such as `steps`; each goes to the attacks that have
        it.

    Returns:
      The bound attacks, with `escape=True` for FMN.

    Raises:
      ValueError: for an unknown norm or attack, an attack that does not support the norm, a setting
        that none of them has, or a value that is out of range.

    Example:
      >>> from jaxrobust import evaluation
      >>> found = evaluation.minimum_norm_attacks("l2", attacks=["ddn", "fmn"], steps=100)
      >>> list(found), found["fmn"].escape
      (['ddn', 'fmn'], True)
    """
    as_choice(norm, name="norm", choices=ANY_NORMS)
    names = ENSEMBLES[norm] if attacks is None else tuple(attacks)
    if not names or len(set(names)) != len(names):
        raise InputError(f"attacks must be different names, at least one; got {list(names)}")
    found: dict[str, Attack] = {}
    used: set[str] = set()
    for name in names:
        as_choice(name, name="attacks", choices=tuple(MINIMUM_NORM))
        fields = {field.name for field in dataclasses.fields(MINIMUM_NORM[name])} - {"threat"}
        own = {key: value for key, value in settings.items() if key in fields}
        bound = _bound(name, norm, **own)
        if bound is None:
            takes = ", ".join(norms_of_attack(name))
            raise InputError(f"attacks must take norm {norm!r}; {name} takes {takes}")
        found[name], used = bound, used | set(own)
    if set(settings) - used:
        raise InputError(
            f"{', '.join(sorted(set(settings) - used))} must be settings of {', '.join(names)}"
        )
    return found


def _bound(name: str, norm: AnyNorm, **settings: Any) -> Any:
    """The attack on a norm, or `None` if it does not support the norm."""
    threat = getattr(threats, norm)(FAR[norm])
    try:
        MINIMUM_NORM[name](threat=threat)
    except InputError:
        return None
    return MINIMUM_NORM[name](threat=threat, **settings)


def checked_attacks(attacks: Mapping[str, Any], norm: AnyNorm) -> dict[str, Any]:
    """The attacks, after checking that all of them search for smallest perturbations in the norm.

    Raises:
      InputError: if there is none, or any other attack.
    """
    if not isinstance(attacks, Mapping) or not attacks:
        raise InputError(f"attacks must be minimum-norm attacks by name, got {attacks!r}")
    for name, attack in attacks.items():
        if name in ("clean", ""):
            raise InputError(f"attacks must not be named {name!r}, which stands for no attack")
        has = all(hasattr(attack, part) for part in ("threat", "settings", "passes"))
        if not has or not getattr(attack, "distances", False):
            raise InputError(
                f"attacks must look for the smallest perturbation, as attacks.FMN does; {name!r} "
                f"is {attack!r}"
            )
        if norm_of(attack.threat) != norm:
            raise InputError(
                f"attacks must be of norm {norm!r}; {name!r} is for "
                f"{threats.described(attack.threat)}"
            )
    return dict(attacks)
