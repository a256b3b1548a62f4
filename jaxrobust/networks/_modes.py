"""Training and evaluation, in the words of the libraries."""

import inspect
from collections.abc import Iterable
from typing import Any

# Argument -> its value in training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "use_running_average": False,
}


def parameters(call: Any) -> tuple[str, ...]:
    """The names of a callable's parameters; of a class those of its constructor."""
    call = call.__init__ if inspect.isclass(call) else call
    return tuple(name for name in inspect.signature(call).parameters if name != "self")


def modes(names: Iterable[str], *, train: bool) -> dict[str, bool]:
    """Those of the names that switch between training and evaluation, with their values."""
    return {name: train == MODES[name] for name in names if name in MODES}
