"""The readers of files that anybody may have written, each as a call on the bytes of one file."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

FIXED = 16 * 2**20  # bytes that reading may take whatever the size of the file
DEFLATE = 1032  # bytes that one byte of deflate can stand for


def silent(line: str) -> None:
    """Takes a line for the user."""


def torch(path: pathlib.Path) -> Any:
    """Weights: safetensors, or what `torch.save` wrote."""
    from jaxrobust import models

    return models.read_torch_checkpoint(path)


def npz(path: pathlib.Path) -> Any:
    """A data set in an npz."""
    from jaxrobust import data

    return data.npz(str(path), test_size=1)


def image(path: pathlib.Path) -> Any:
    """A data set of image files."""
    from jaxrobust import data

    folder = path.with_name("set")
    for part in ("train/a", "train/b", "test/a", "test/b"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / part / f"0{path.suffix}")
    return data.image_folder(str(folder), test="test", resize=4)


def config(path: pathlib.Path) -> Any:
    """The configuration of a run."""
    from jaxrobust import training

    folder = path.with_name("run")
    folder.mkdir(exist_ok=True)
    shutil.copyfile(path, folder / "config.json")
    return training.read_config(folder, say=silent)


def results(path: pathlib.Path) -> Any:
    """The rows of a run or the results of a trade-off, as tables."""
    from jaxrobust import commands

    text = commands.markdown_table(path)
    return commands.fronts_markdown(path) if '"sweep"' in path.read_text() else text


class Reader(NamedTuple):
    """How a kind of file is read.

    Attributes:
      read: raises nothing but ValueError and OSError.
      ending: of the file's name.
      times: bytes that reading may take for each byte of the file, besides `FIXED`: ten, or more
        where the format is compressed.
    """

    read: Callable[[pathlib.Path], Any]
    ending: str
    times: int = 10


READERS = {
    "pt": Reader(torch, ".pt"),
    "safetensors": Reader(torch, ".safetensors"),
    "npz": Reader(npz, ".npz", 4 * DEFLATE),
    "png": Reader(image, ".png", 32 * DEFLATE),
    "jpeg": Reader(image, ".jpg", 32 * DEFLATE),
    "config": Reader(config, ".json"),
    "rows": Reader(results, ".jsonl", 100),
    "results": Reader(results, ".json", 100),
}
