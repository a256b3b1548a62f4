"""Experiment files: Python files that define `config`."""

import importlib.util
import pathlib
import sys
import traceback
import types

from jaxrobust import shipped
from jaxrobust.experiment._experiment import Experiment
from jaxrobust.experiment._tradeoff import Tradeoff
from jaxrobust.inputs import InputError


def load(path: str | pathlib.Path) -> Experiment | Tradeoff:
    """The `config` of an experiment file.

    The file is a module of its own name, as with `python FILE`: its folder is the first that is
    searched for modules, the current folder the last. Parts may lie in it or beside it.

    Args:
      path: a Python file that defines `config`, an `Experiment` or a `Tradeoff`; or the name of
        an experiment that comes with the library, such as "digits_trades".

    Returns:
      The `Experiment` or `Tradeoff`.

    Raises:
      ValueError: if the file does not exist, has the name of another module, defines no `config`,
        or raises an exception: one line that begins with the file and its line.

    Example:
      >>> from jaxrobust.experiment import load
      >>> load("digits_trades").epochs
      40
    """
    try:
        path = pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error} Give an absolute path.") from None
    if path.name == str(path) and not path.suffix and not path.exists():
        path = shipped.experiment(path.name)
    if path.suffix != ".py" or not path.is_file():
        named = f", or a name: {path.stem}" if path.stem in shipped.experiments() else ""
        raise ValueError(
            f"{path} is not an experiment file: it must be an existing .py file{named}"
        )
    _check_name(path)
    folder = str(path.absolute().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    search_current_folder()
    module = _executed(path)
    config = getattr(module, "config", None)
    if not isinstance(config, Experiment | Tradeoff):
        raise ValueError(f"{path} must define `config`, an Experiment or a Tradeoff")
    return config


def search_current_folder() -> None:
    """Makes modules of the current folder importable, after all others.

    A console script is searched for modules in its own folder instead.
    """
    current = str(pathlib.Path.cwd())
    if current not in sys.path and "" not in sys.path:
        sys.path.append(current)


def _check_name(path: pathlib.Path) -> None:
    """Refuses the name of another module: `NAME:part` would then mean that one's part."""
    there = sys.modules.get(path.stem)
    if there is None and path.stem not in sys.stdlib_module_names:
        return
    file = getattr(there, "__file__", None)
    same = file is not None and pathlib.Path(file).resolve() == path.resolve()
    if same or (hasattr(there, "config") and not _own(there)):
        return
    other = file or "part of Python"
    raise ValueError(
        f"{path}: the module name {path.stem!r} is taken by another module ({other}); rename the "
        "file"
    )


def _own(module: types.ModuleType | None) -> bool:
    """Whether functions or classes are defined in a module, which parts may name."""
    values = vars(module).values() if module is not None else ()
    return any(
        callable(value) and getattr(value, "__module__", None) == module.__name__  # type: ignore[union-attr]
        for value in values
    )


def _executed(path: pathlib.Path) -> types.ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found is not None
    assert found.loader is not None
    module, before = importlib.util.module_from_spec(found), sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[path.stem]
        if before is not None:
            sys.modules[path.stem] = before
        raise ValueError(f"{_place(path, found.origin, error)}: {_told(error)}") from error
    return module


def _place(path: pathlib.Path, origin: str | None, error: BaseException) -> str:
    """The file and the last of its lines that was running."""
    if isinstance(error, SyntaxError) and error.filename is not None:  # also of imported files
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == origin]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _told(error: BaseException) -> str:
    """An exception in one line; the library's own messages need no name of their class."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    message = " ".join(str(error).split())
    if type(error) in (ValueError, InputError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
