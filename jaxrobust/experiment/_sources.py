"""Which version of code from outside a run was made with."""

import hashlib
import importlib.metadata
import importlib.util
import pathlib
import site
import sysconfig

from jaxrobust.experiment._experiment import Experiment


def sources(experiment: Experiment) -> dict[str, str]:
    """The version, or a hash of the source, of every package that parts come from.

    Args:
      experiment: whose parts.

    Returns:
      By package "version 1.2" for one that is installed, else "sha256 ..." of its Python files;
      empty for an experiment of the library's own parts.
    """
    return {name: _source(name) for name in experiment.packages()}


def _source(package: str) -> str:
    found = importlib.util.find_spec(package)
    origin = found.origin if found is not None else None
    folders = [pathlib.Path(f) for f in (found.submodule_search_locations or ())] if found else []
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
