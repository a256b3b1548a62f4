"""The experiment files that come with the library."""

import ast
import difflib
import pathlib
from typing import NamedTuple

INSTALLED = pathlib.Path(__file__).parent / "_experiments"
CLONED = pathlib.Path(__file__).parents[1] / "experiments"


class Shipped(NamedTuple):
    """One experiment file.

    Attributes:
      path: of the file.
      command: the subcommand that runs it: "train" or "tradeoff".
      title: the first line of its docstring.
    """

    path: pathlib.Path
    command: str
    title: str


def experiments() -> dict[str, Shipped]:
    """Returns the experiment files of this installation by name, without running any of them.

    The wheel has them in `jaxrobust/_experiments`. A clone has them in `experiments`.

    Returns:
      The files that define `config`, sorted by name.

    Example:
      >>> from jaxrobust import shipped
      >>> shipped.experiments()["digits_trades"].command
      'train'
    """
    folder = INSTALLED if INSTALLED.is_dir() else CLONED
    found = {path.stem: _read(path) for path in sorted(folder.glob("*.py"))}
    return {name: entry for name, entry in found.items() if entry is not None}


def experiment(name: str) -> pathlib.Path:
    """Returns the path of an experiment file that comes with the library.

    Args:
      name: of the experiment, such as "digits_trades".

    Returns:
      The path.

    Raises:
      ValueError: if there is no experiment of that name; similar names are in the message.

    Example:
      >>> from jaxrobust import shipped
      >>> shipped.experiment("digits_trades").name
      'digits_trades.py'
    """
    known = experiments()
    if name in known:
        return known[name].path
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(
        f"{name} is not an experiment file, and no experiment of that name comes with jaxrobust; "
        f"{hint}`jaxrobust list experiments` shows them"
    )


def _read(path: pathlib.Path) -> Shipped | None:
    """Reads a file's docstring and the call that makes its `config`; `None` without one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "config" for target in node.targets
        ):
            doc = ast.get_docstring(tree) or ""
            called = node.value.func if isinstance(node.value, ast.Call) else None
            several = isinstance(called, ast.Name) and called.id == "Tradeoff"
            several = several or "jaxrobust tradeoff" in doc
            return Shipped(path, "tradeoff" if several else "train", doc.partition("\n")[0])
    return None
