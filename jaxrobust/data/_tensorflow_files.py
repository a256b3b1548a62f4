"""Opening files as TFDS builders do: all that most of them use of TensorFlow."""

import contextlib
import glob
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

GFILE = SimpleNamespace(
    GFile=open,
    exists=os.path.exists,
    glob=glob.glob,
    isdir=os.path.isdir,
    listdir=os.listdir,
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    walk=os.walk,
)


class Absent:
    """Stands for TensorFlow where it is not installed: knows `io.gfile` and nothing else."""

    def __init__(self, path: str, **known: Any) -> None:
        self._path = path
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        raise ImportError(f"{self._path}.{name} needs TensorFlow, which is not installed")


@contextlib.contextmanager
def opened_without_tensorflow(builder_class: type) -> Iterator[None]:
    """The module of a TFDS builder opens files by Python where TensorFlow is not installed.

    Only the name `tf` of the modules that define the class and its bases is replaced, and only
    while the body runs.
    """
    if importlib.util.find_spec("tensorflow") is not None:
        yield
        return
    tensorflow = Absent("tensorflow", io=Absent("tensorflow.io", gfile=GFILE))
    modules = {sys.modules[base.__module__] for base in builder_class.__mro__}
    with contextlib.ExitStack() as stack:
        for module in modules:
            # Sets only: TFDS's own machinery knows how to do without.
            is_core = module.__name__.startswith("tensorflow_datasets.core")
            if "tf" in vars(module) and not is_core:
                stack.callback(setattr, module, "tf", vars(module)["tf"])
                setattr(module, "tf", tensorflow)  # noqa: B010 - no module knows it has one
        yield
