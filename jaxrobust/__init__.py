"""Accuracy against robustness in JAX; `jaxrobust.attacks` and the other rooms load when used."""

import importlib
import pkgutil
from typing import Any


def __getattr__(name: str) -> Any:
    """The room of that name, loaded now: importing losses alone loads little."""
    if name in __dir__():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith(("_", "cli"))]
