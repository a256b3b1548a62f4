"""Where compiled programs are kept between runs."""

import os
import pathlib

import click

from jaxrobust.files import unwritable

CACHE, ENABLED = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"


def set_up_compilation_cache() -> None:
    """Compiled programs are kept between runs, unless the user says where or that they are not.

    JAX_COMPILATION_CACHE_DIR moves the cache, JAX_ENABLE_COMPILATION_CACHE=false switches it off.
    Without a home directory, or where the folder cannot be written to, there is none.
    """
    if os.environ.get(ENABLED, "").lower() in ("0", "false", "off", "no"):
        return
    asked = os.environ.get(CACHE)
    folder = asked or _default()
    if folder is None:
        os.environ[ENABLED] = "false"
        return
    if "://" not in folder and not _writable(pathlib.Path(folder)):
        os.environ[ENABLED] = "false"
        if asked:
            click.echo(f"warning: {CACHE}={folder} cannot be written to: no cache", err=True)
        return
    os.environ[CACHE] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _home() -> pathlib.Path | None:
    try:
        return pathlib.Path.home()
    except (RuntimeError, KeyError):  # no HOME, and a user that the system does not know
        return None


def _default() -> str | None:
    home = _home()
    cache = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    return str(pathlib.Path(cache) / "jaxrobust" / "xla") if cache else None


def _writable(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return unwritable(folder) is None
