"""What a stored file may name: exported names, and what the reader trusts."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from jaxrobust.spec._spec import Spec, inside
from jaxrobust.spec._targets import MAIN, check_path, resolved

TRUST = "JAXROBUST_TRUST"
# The library's own parts have exported names; all else of it reads and writes files.
NEVER = {*sys.stdlib_module_names, MAIN, "jaxrobust"}


class UntrustedError(ValueError):
    """A stored file names code that the reader has not allowed."""


def trusted(packages: Iterable[str] = ()) -> frozenset[str]:
    """The packages whose code stored files may name: those given, and those of `JAXROBUST_TRUST`.

    Args:
      packages: names of top-level packages or modules.

    Returns:
      The names.

    Raises:
      ValueError: for the standard library, this package, or what is no name of a package.

    Example:
      >>> from jaxrobust.spec import trusted
      >>> sorted(trusted(["my_project"]))
      ['my_project']
    """
    given = [packages] if isinstance(packages, str) else list(packages)
    found = re.split(r"[\s,]+", ",".join([*given, os.environ.get(TRUST, "")]))
    names = frozenset(name for name in found if name)
    for name in sorted(names):
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise ValueError(f"trust must be the name of a top-level package, got {name!r}")
        if name in NEVER:
            raise ValueError(f"trust: {name} cannot be trusted; {_reason(name)}")
    return names


def _reason(package: str) -> str:
    if package == "jaxrobust":
        return "stored files name parts of jaxrobust by their exported names"
    return "it is part of Python and can run anything"


def check_stored(parts: Any, trust: frozenset[str]) -> None:
    """Checks what a stored file names, before any of it is imported or called.

    Importing a module runs its code, and so does calling what is there. What a trusted package has
    from elsewhere (`from subprocess import run`) is not trusted by that.

    Args:
      parts: a part, or lists and dictionaries of them.
      trust: of `trusted`.

    Raises:
      UntrustedError: for an import path of a package that is not trusted.
      ValueError: for what is no import path, or cannot be imported.
    """
    paths = list(_paths(parts))
    for path in paths:
        check_path(path)
        _check_package(path, _top(path), trust)
    for path in paths:
        module = getattr(resolved(path, {}, path), "__module__", None)
        _check_package(path, _top(str(module)), trust)


def _check_package(path: str, package: str, trust: frozenset[str]) -> None:
    if package in NEVER:
        raise UntrustedError(f"{path} may not stand in a stored file; {_reason(package)}")
    if package not in trust:
        raise UntrustedError(
            f"{path} is code of the package {package!r}; if you trust it, add --trust {package} "
            f"({TRUST}={package}, or trust=({package!r},) in Python)"
        )


def packages_of(parts: Any) -> tuple[str, ...]:
    """The top-level packages of the import paths that parts name.

    Args:
      parts: a part, or lists and dictionaries of them.

    Returns:
      Names, sorted.
    """
    return tuple(sorted({_top(path) for path in _paths(parts)}))


def _paths(parts: Any) -> Iterator[str]:
    return (spec.target for spec in inside(parts) if isinstance(spec, Spec) and ":" in spec.target)


def _top(path: str) -> str:
    return path.split(":")[0].split(".")[0]
