"""`jaxrobust new`: a first experiment file."""

import pathlib
import re
from collections.abc import Callable

from jaxrobust import shipped
from jaxrobust.experiment import load
from jaxrobust.files import replace_text

TEMPLATE = '''\
"""TRADES on scikit-learn's digits: `jaxrobust train {name}.py`."""

from jaxrobust import Experiment, use

config = Experiment(
    name="{name}",
    data=use("digits"),
    model=use("digits_cnn", width=16),
    objective=use("trades", beta=6.0),
    threat=use("linf", eps=0.1),
    learning_rate=use("cosine", peak=0.1, warmup_epochs=2),
    epochs=40,
    batch_size=128,
)
'''


def new_experiment(
    path: pathlib.Path, *, like: str | None = None, say: Callable[[str], None] = print
) -> None:
    """Writes an experiment file.

    Args:
      path: the path of the new file. Its stem becomes the experiment's name.
      like: name of an experiment of the library to copy; default a short one on digits.
      say: called with a line that says what was written and what to run next.

    Raises:
      ValueError: if the file exists, if its name cannot name a module, or if no experiment has the
        name `like`.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise ValueError(
            f"{path} must be a .py file whose name is a Python identifier, such as mine.py"
        )
    if path.exists():
        raise ValueError(f"{path} exists already; choose another name or delete it")
    text, command = TEMPLATE.format(name=path.stem), "train"
    if like is not None:
        source = shipped.experiment(like)
        text, command = _renamed(source.read_text(encoding="utf-8"), like, path), _command(like)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    try:
        load(path)
    except ValueError:
        path.unlink()
        raise
    say(f"wrote {path}; run it with: jaxrobust {command} {path}")


def _command(like: str) -> str:
    return shipped.experiments()[like].command


def _renamed(text: str, old: str, path: pathlib.Path) -> str:
    """An experiment's text under a new name, also in its commands and its folder of results."""
    text = re.sub(rf"(jaxrobust \w+) (experiments/)?{old}(\.py)?\b", rf"\1 {path.name}", text)
    text = text.replace(f'name="{old}"', f'name="{path.stem}"')
    # A file beside the original has its name everywhere.
    beside = r'load\(pathlib\.Path\(__file__\)\.with_name\("(\w+)\.py"\)\)'
    text = re.sub(beside, r'load("\1")', text)
    return re.sub(rf"\bruns/{old}\b", f"runs/{path.stem}", text)
