"""What the library exports, by room: the API pages are made of it and checked against it."""

import importlib
import inspect
import pathlib
import pkgutil
import types
from typing import Any

import jaxrobust

# Rooms that users call, in the order of the site. All others are "inner rooms".
USERS = {
    "Attack and measure": ("attacks", "threats", "losses", "evaluation", "evaluators", "twins"),
    "Train": ("experiment", "training", "objectives", "schedules", "curricula", "augment"),
    "Networks and data": ("models", "networks", "data", "mixing", "shipped"),
    "Certify and compute": ("bounds", "theory", "scaling", "convolutions", "keys", "typing"),
}


def rooms() -> list[str]:
    """Returns the names of all rooms."""
    found = pkgutil.iter_modules(jaxrobust.__path__)
    return [m.name for m in found if not m.name.startswith(("_", "cli"))]


def groups() -> dict[str, list[str]]:
    """Returns the rooms by heading; each room stands once."""
    users = {heading: list(names) for heading, names in USERS.items()}
    named = [name for names in users.values() for name in names]
    return users | {"Inner rooms": [room for room in rooms() if room not in named]}


def exports(room: str) -> dict[str, Any]:
    """Returns the public objects of a room by name.

    A folder exports what its `__init__` names. A single file exports what it defines.

    Args:
      room: such as "attacks".

    Returns:
      The objects; modules are not among them.
    """
    module = importlib.import_module(f"jaxrobust.{room}")
    folder = pathlib.Path(inspect.getfile(module)).name == "__init__.py"
    found = {}
    for name, value in sorted(vars(module).items(), key=lambda item: item[0].lower()):
        if name.startswith("_") or isinstance(value, types.ModuleType):
            continue
        home = getattr(value, "__module__", None) or ""
        if folder or home == module.__name__ or (room == "typing" and home not in OTHERS):
            found[name] = value
    return found


OTHERS = ("collections.abc", "jax", "typing")  # of which `jaxrobust.typing` imports
