"""Accuracy against robustness in JAX; `jaxrobust.attacks` and the other rooms load when used."""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrobust.experiment import Evaluation as Evaluation
    from jaxrobust.experiment import Experiment as Experiment
    from jaxrobust.experiment import Tradeoff as Tradeoff
    from jaxrobust.experiment import Validation as Validation
    from jaxrobust.experiment import replace as replace
    from jaxrobust.experiment import use as use

__version__ = "0.1.0"
# What an experiment file needs; it is loaded from its room on first use.
_EXPERIMENT = ("Evaluation", "Experiment", "Tradeoff", "Validation", "replace", "use")


def __getattr__(name: str) -> Any:
    """Loads a room, or a name of an experiment file, on first use."""
    if name in _EXPERIMENT:
        return getattr(importlib.import_module(f"{__name__}.experiment"), name)
    if name in _rooms():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *_EXPERIMENT, *_rooms()]


def _rooms() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith(("_", "cli"))]
