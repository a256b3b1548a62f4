"""Fails a build whose pages lack an exported name."""

from typing import Any

from _pages.exports import exports, rooms


def missing(documented: set[str]) -> list[str]:
    """Returns the exported names that have no entry.

    Args:
      documented: full names that have one.

    Returns:
      Full names, such as "jaxrobust.attacks.pgd".
    """
    wanted = [f"jaxrobust.{room}.{name}" for room in rooms() for name in exports(room)]
    return [name for name in wanted if name not in documented]


def check(app: Any, environment: Any) -> None:
    """Warns of every missing name; `make docs` turns warnings into errors."""
    from sphinx.util import logging

    for name in missing({entry[0] for entry in environment.domains["py"].get_objects()}):
        logging.getLogger(__name__).warning("%s is exported and has no entry", name)
