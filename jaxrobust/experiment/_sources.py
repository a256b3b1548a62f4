"""Which version of code from outside a run was made with."""

import hashlib
import importlib.metadata
import importlib.util
import pathlib
import site
import sysconfig
from collections.abc import Iterable
from importlib.machinery import ModuleSpec


def sources(packages: Iterable[str]) -> dict[str, str]:
    """The version, or a hash of the source, of packages that parts come from.

    Args:
      packages: top-level names, such as `Experiment.packages()`.

    Returns:
      By package "version 1.2" for one that is installed, else "sha256 ..." of its Python files;
      without those that have no source, such as the running script.
    """
    found = {name: _found(name) for name in packages}
    return {name: _source(name, spec) for name, spec in found.items() if spec is not None}


def _found(package: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(package)
    except ValueError:  # a module that was not imported, such as the running script
        return None


def _source(package: str, found: ModuleSpec) -> str:
    origin, folders = found.origin, [*map(pathlib.Path, found.submodule_search_locations or ())]
    if origin is not None and _installed(pathlib.Path(origin)):
        try:
            return f"version {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            pass  # its distribution has another name
    files = [(file.relative_to(f), file) for f in folders for file in f.rglob("*.py")]
    if not folders and origin is not None:
        files = [(pathlib.Path(package), pathlib.Path(origin))]
    digest = hashlib.sha256()
    for name, file in sorted(files):
        content = file.read_bytes() if file.is_file() else b""
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
    return f"sha256 {digest.hexdigest()}"


def _installed(file: pathlib.Path) -> bool:
    places = [*site.getsitepackages(), sysconfig.get_paths()["purelib"]]
    return any(file.is_relative_to(place) for place in places)
