"""The uninterrupted runs that trials are compared with, and copies of them to harm."""

import os
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.faults._contents import Contents, differing
from benchmarks.faults._running import Ended, Place, Running, hear_interrupts, older_versions
from benchmarks.faults._scenes import SCENES, Scene

CACHE = "JAX_COMPILATION_CACHE_DIR"


class Reference(NamedTuple):
    """An uninterrupted run of a command.

    Attributes:
      file: the experiment.
      run: its finished folder.
      older: earlier versions of files that changed in it.
      contents: its result.
      out: what it printed.
      seconds: from start to end, with compiled programs in the cache.
    """

    file: pathlib.Path
    run: pathlib.Path
    older: pathlib.Path
    contents: Contents
    out: str
    seconds: float


class Ground:
    """Folders for trials, and the references, each made when it is first asked for.

    Args:
      folder: an empty one. Compiled programs are kept in it, unless `JAX_COMPILATION_CACHE_DIR`
        names a folder.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        hear_interrupts()
        self.folder = folder
        self._references: dict[str, Reference] = {}
        self._running: list[Running] = []
        self._count = 0
        cache = os.environ.get(CACHE) or str(folder / "cache")
        # Small programs too: most of the time of a trial would go into them.
        self._environment = {
            CACHE: cache,
            "JAX_ENABLE_COMPILATION_CACHE": "true",  # which other benchmarks switch off
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }

    def reference(self, name: str) -> Reference:
        """The uninterrupted run of a command.

        Args:
          name: of the scene.

        Returns:
          The second of two runs; the first one filled the cache.

        Raises:
          RuntimeError: if a run fails, or if the two differ.
        """
        if name not in self._references:
            self._references[name] = self._made(name)
        return self._references[name]

    def _made(self, name: str) -> Reference:
        scene, older = SCENES[name], self.folder / "older" / name
        file = scene.write(self.folder / "experiments", self.folder / "images")
        found: list[tuple[pathlib.Path, Contents, str, float]] = []
        for number in range(2):
            run = self.folder / "whole" / f"{name}{number}"
            if scene.base:
                shutil.copytree(self.reference(scene.base).run, run)
            started = time.monotonic()
            first, *others = self.start(scene, file, run)
            ended = [older_versions(run, first, older), *(other.end() for other in others)]
            if any(process.code for process in ended):
                raise RuntimeError(f"{name} fails without a fault: {ended[0].text}")
            seconds = time.monotonic() - started
            found.append((run, scene.contents(run), ended[0].out, seconds))
        different = differing(found[0][1], found[1][1])
        if different:
            raise RuntimeError(f"two uninterrupted runs of {name} differ: {', '.join(different)}")
        shutil.rmtree(found[0][0])
        return Reference(file, found[1][0], older, *found[1][1:])

    def fresh(self, name: str, folder: pathlib.Path | None = None) -> pathlib.Path:
        """A folder in which the command has not been started yet."""
        run = self._next(folder)
        base = SCENES[name].base
        if base:
            shutil.copytree(self.reference(base).run, run)
        return run

    def finished(self, name: str) -> pathlib.Path:
        """A copy of the folder in which the command has finished."""
        run = self._next(None)
        shutil.copytree(self.reference(name).run, run)
        return run

    def older(self, name: str, file: str) -> pathlib.Path | None:
        """An older version of a file of a finished run that differs from it, if there is one.

        Files of a checkpoint never change; theirs is the same file of the checkpoint before.
        """
        reference, base = self.reference(name), SCENES[name].base
        now = (reference.run / file).read_bytes()
        seen = [reference.older / file, *([self.reference(base).older / file] if base else [])]
        parts = pathlib.Path(file).parts
        for place in (i for i, part in enumerate(parts) if part.isdecimal()):
            above = reference.run.joinpath(*parts[:place])
            steps = [int(path.name) for path in above.iterdir() if path.name.isdecimal()]
            for step in sorted(s for s in steps if s < int(parts[place])):
                seen.append(above.joinpath(str(step), *parts[place + 1 :]))
        found = [path for path in seen if path.is_file() and path.read_bytes() != now]
        return found[-1] if found else None

    def start(
        self, scene: Scene, file: pathlib.Path, run: pathlib.Path, place: Place | None = None
    ) -> list[Running]:
        """Starts the processes of a command."""
        place = place or Place()
        place = place._replace(environment={**self._environment, **place.environment})
        started = [Running(words, place) for words in scene.calls(file, run)]
        self._running = [process for process in self._running if process.alive_after(0)] + started
        return started

    def close(self) -> None:
        """Ends what is still running, after an error or Ctrl-C."""
        for process in self._running:
            process.kill()

    def run(self, name: str, run: pathlib.Path, place: Place | None = None) -> list[Ended]:
        """Runs a command to its end."""
        scene, file = SCENES[name], self.reference(name).file
        return [process.end() for process in self.start(scene, file, run, place)]

    def drop(self, run: pathlib.Path) -> None:
        """Removes the folder of a trial."""
        shutil.rmtree(run, ignore_errors=True)

    def _next(self, folder: pathlib.Path | None) -> pathlib.Path:
        self._count += 1
        return (folder or self.folder / "trials") / f"run{self._count}"


def files_of(run: pathlib.Path) -> Sequence[str]:
    """The files in a run's folder, without locks, which are empty."""
    found = sorted(path for path in run.rglob("*") if path.is_file() and path.suffix != ".lock")
    return [str(path.relative_to(run)) for path in found]
