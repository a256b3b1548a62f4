"""All trials of the campaign, in the order of commands and kinds."""

import contextlib
import pathlib
import random
from collections.abc import Iterator, Sequence

from benchmarks.fault_kinds import AT_RANDOM, COMMANDS, DAMAGE, KINDS, STOPS, SURROUNDINGS
from benchmarks.faults._damage import damaged
from benchmarks.faults._ground import Ground, files_of
from benchmarks.faults._scenes import SCENES
from benchmarks.faults._stops import stopped
from benchmarks.faults._surroundings import surrounded
from benchmarks.faults._together import evaluated, twice
from benchmarks.faults._verdict import Row


def campaign(
    folder: pathlib.Path,
    *,
    trials: int,
    seed: int = 0,
    only: Sequence[str] = (),
    commands: Sequence[str] = (),
) -> Iterator[Row]:
    """Tries faults on the real command line.

    A trial depends on the seed, its command, its kind and its number alone.

    Args:
      folder: an empty one, for the runs.
      trials: of each kind for each command: of signals, disks and clocks so many moments and
        sizes, of damage so many files; every other kind has one.
      seed: draws moments, files and places of damage.
      only: the kinds; default all.
      commands: the commands; default all.

    Returns:
      An iterator of rows.
    """
    with contextlib.closing(Ground(folder)) as ground:
        for name in [n for n in COMMANDS if n in (commands or COMMANDS)]:
            for kind in [k for k in KINDS if k in (only or KINDS) and applicable(name, k)]:
                for row in _trials(ground, name, kind, trials, seed):
                    # A temporary folder, in rows that are to be committed.
                    short = row.message.replace(str(ground.folder), "FOLDER")
                    yield row._replace(message=short)


def applicable(name: str, kind: str) -> bool:
    """Whether a kind of fault makes sense for a command."""
    scene = SCENES[name]
    if kind == "evaluated meanwhile":
        return name in ("train", "stream")
    if kind == "read-only parent":
        return not scene.base  # nothing new is made for the others
    return kind != "twice at once" or scene.processes == 1


def _trials(ground: Ground, name: str, kind: str, trials: int, seed: int) -> Iterator[Row]:
    """The trials of one kind on one command."""

    def rng(number: int | str) -> random.Random:
        return random.Random(f"{seed} {name} {kind} {number}")

    if kind in DAMAGE:
        files = files_of(ground.reference(name).run)
        if kind == "older version":
            files = [file for file in files if ground.older(name, file) is not None]
        for file in rng("files").sample(files, min(trials, len(files))):
            yield damaged(ground, name, kind, file, rng(file))
    elif kind in STOPS:
        for number in range(trials):
            yield stopped(ground, name, kind, rng(number))
    elif kind in SURROUNDINGS:
        for number in range(trials if kind in AT_RANDOM else 1):
            yield surrounded(ground, name, kind, rng(number))
    else:
        for number in range(trials):
            trial = twice if kind == "twice at once" else evaluated
            yield trial(ground, name, rng(number))
