"""The commands of the campaign, each on one tiny experiment on the digits."""

import pathlib
import shutil
import socket
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.faults._contents import (
    Contents,
    of_autoattack,
    of_evaluation,
    of_tradeoff,
    of_training,
)
from jaxrobust.data import digits

HEAD = """from dataclasses import replace

from jaxrobust.experiment import Evaluation, Experiment, Tradeoff, Validation, use

config = Experiment(
    name="small",
    data=use("digits"),
    model=use("digits_cnn", width=4),
    objective=use("pgd_at", steps=2),
    threat=use("linf", eps=0.1),
    epochs=6,
    batch_size=256,
    validation=Validation(size=64, every=1, steps=2),
    evaluation=Evaluation(steps=2, batch_size=360),
)
"""
STREAM = """
config = replace(
    config,
    batch_size=64,
    data=use("image_folder", path={images!r}, channels=1, stream=True),
)
"""
SWEEP = """
trades = replace(config, name="TRADES", objective=use("trades", steps=2))
config = Tradeoff(
    name="sweep",
    members=(replace(trades, sweep={"objective.beta": (1, 4)}),),
    seeds=(0, 1),
)
"""
TRADEOFF = """
config = Tradeoff(
    name="both",
    members=(
        replace(config, name="standard", objective=use("standard")),
        replace(config, name="PGD-AT"),
    ),
    evaluators=(
        use("autoattack", norm="linf", eps=0.1, version="custom", attacks=("apgd-ce",), images=32),
    ),
)
"""
CUSTOM = ("--version", "custom", "--attacks", "apgd-ce,square", "--n", "64")


class Scene(NamedTuple):
    """A command of the campaign.

    Attributes:
      name: of `fault_kinds.COMMANDS`.
      words: the arguments of `jaxrobust`; `FILE` and `RUN` stand for the experiment and the folder.
      contents: reads the result from the folder.
      experiment: what follows `HEAD` in the experiment file.
      base: the scene whose finished folder the command starts from.
      processes: the number of processes that run the command together.
    """

    name: str
    words: tuple[str, ...]
    contents: Callable[[pathlib.Path], Contents]
    experiment: str = ""
    base: str = ""
    processes: int = 1

    def write(self, folder: pathlib.Path, images: pathlib.Path) -> pathlib.Path:
        """Writes the experiment file; images to stream are written to another folder."""
        text = self.experiment
        if self.experiment == STREAM:
            write_images(images)
            text = STREAM.format(images=str(images))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.name}_experiment.py"
        file.write_text(HEAD + text)
        return file

    def calls(self, file: pathlib.Path, run: pathlib.Path) -> list[list[str]]:
        """The arguments of each process."""
        places = {"FILE": str(file), "RUN": str(run)}
        words = [places.get(word, word) for word in self.words]
        if self.processes == 1:
            return [words]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        join = ["--coordinator", f"127.0.0.1:{port}", "--processes", str(self.processes)]
        return [[*words, *join, "--process-id", str(n)] for n in range(self.processes)]


_TRAIN = ("train", "FILE", "--workdir", "RUN", "--resume")
_TRADEOFF = ("tradeoff", "FILE", "--workdir", "RUN")
_EVALUATE = ("evaluate", "RUN")
SCENES = {
    scene.name: scene
    for scene in (
        Scene("train", _TRAIN, of_training),
        Scene("stream", _TRAIN, of_training, STREAM),
        Scene("processes", _TRAIN, of_training, processes=2),
        Scene("sweep", _TRADEOFF, of_tradeoff, SWEEP),
        Scene("tradeoff", _TRADEOFF, of_tradeoff, TRADEOFF),
        Scene("evaluate", _EVALUATE, of_evaluation, base="train"),
        Scene(
            "autoattack",
            (*_EVALUATE, "--attack", "autoattack", *CUSTOM),
            of_autoattack,
            base="train",
        ),
    )
}


def write_images(folder: pathlib.Path) -> None:
    """Some digits as PNG files, one folder per class."""
    if folder.exists():
        return
    found, partial = digits(), folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part, count in (("train", 384), ("test", 64)):
        images, labels = (getattr(found, f"{part}_{name}") for name in ("images", "labels"))
        for number in range(count):
            file = partial / part / str(labels[number]) / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(15) * images[number, ..., 0]).save(file)
    partial.rename(folder)
