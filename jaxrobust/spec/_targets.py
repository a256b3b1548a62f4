"""Import paths: from a function or class to its path, and back."""

import difflib
import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
MAIN = "__main__"
MANY = 40  # names; more of them are not listed in a message


def path_of(target: Any) -> str:
    """The shortest import path of a function or class.

    Args:
      target: the callable.

    Returns:
      `package.module:name`.

    Raises:
      ValueError: if no path leads to it.
    """
    _refuse_unnamed(target)
    module, name = target.__module__, target.__qualname__
    if module == MAIN:
        _refuse_main(name)
    packages = module.split(".")
    for count in range(1, len(packages) + 1):
        place = ".".join(packages[:count])
        if place in sys.modules and vars(sys.modules[place]).get(name) is target:
            path = f"{place}:{name}"
            check_path(path)
            return path
    raise ValueError(
        f"use: {module}:{name} is another object than the one given; give its import path as text"
    )


def _refuse_unnamed(target: Any) -> None:
    """Refuses callables that an experiment cannot name."""
    if isinstance(target, functools.partial):
        raise ValueError(
            f"use: {target!r} has no import path; give its function and arguments: use(f, x=1)"
        )
    name = getattr(target, "__qualname__", None)
    if not callable(target) or not isinstance(name, str):
        raise ValueError(
            "use: the target must be a name, an import path 'package.module:name', a function or "
            f"a class, got {_shortly(target)}"
        )
    if "<lambda>" in name:
        raise ValueError("use: a lambda has no import path; write a function with def in a module")
    if "<locals>" in name:
        raise ValueError(
            f"use: {name} is made inside of a function and has no import path; move it to the "
            "top of a module"
        )
    if inspect.ismethod(target) or "." in name or not isinstance(target.__module__, str):
        raise ValueError(f"use: {name} is a method; write a function of a module that calls it")


def _shortly(value: Any) -> str:
    """A value for a message: of an object, only its class."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return repr(value)[:80]
    name = kind.__name__
    return f"an instance of {name}; give the class, then its arguments: use({name}, ...)"


def _refuse_main(name: str) -> None:
    raise ValueError(
        f"use: {name} is defined in the script that runs ({MAIN}); move it to a module beside it "
        "and import it from there"
    )


def check_path(target: str) -> None:
    """Checks the form of an import path.

    Raises:
      ValueError: if it is no `package.module:name`.
    """
    if not PATH.fullmatch(target):
        raise ValueError(f"{target!r} is no import path; write 'package.module:name'")
    if target.split(":")[0] == MAIN:
        _refuse_main(target.split(":")[1])


def resolved(target: str, names: Any, where: str) -> Callable:
    """The callable that a target names.

    Args:
      target: one of `names`, or an import path, whose module is imported.
      names: callables by exported name.
      where: the field, for messages.

    Returns:
      The callable.

    Raises:
      ValueError: in one line, if there is none.
    """
    if ":" not in target:
        if target not in names:
            shown = ", ".join(names) if len(names) <= MANY else "those of `jaxrobust list`"
            own = f"; your own is named {_with_colon(target)!r}" if "." in target else ""
            hint = own or _meant(target, names)
            raise ValueError(f"{where}: {target!r} is unknown; choose from {shown}{hint}")
        return names[target]
    try:
        check_path(target)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    module, name = target.split(":")
    found = getattr(_imported(module, target, where), name, None)
    if not callable(found) or isinstance(found, functools.partial):
        what = "has no" if found is None else "cannot be called by its name, or is a partial:"
        hint = _meant(name, dir(_imported(module, target, where))) if found is None else ""
        raise ValueError(f"{where}: the module {module} {what} {name}{hint}")
    return found


def _meant(name: str, names: Iterable[str]) -> str:
    """The likeliest name, where one letter or two are wrong."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _with_colon(target: str) -> str:
    """An import path of dots in this library's form."""
    return ":".join(target.rsplit(".", 1))


def _imported(module: str, target: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            place = "" if where == target else f"{where}: "
            raise ValueError(
                f"{place}{target} needs the module {error.name!r}, which is not here: work in "
                "the folder that holds it, or install it"
            ) from None
        raise ValueError(f"{where}: importing {module} failed: {error}") from error
    except Exception as error:  # a module may fail in any way
        told = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{where}: importing {module} failed: {type(error).__name__}: {told}"
        ) from error
