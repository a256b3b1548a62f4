"""Finished runs with one damaged file, on which the command is run again."""

import pathlib
import random
import shutil

from benchmarks.fault_kinds import REFUSED, SAME
from benchmarks.faults._ground import Ground
from benchmarks.faults._running import Place, without_privileges
from benchmarks.faults._verdict import (
    Row,
    compared,
    failed,
    finished,
    member_refused,
    refused,
    told,
    unseemly,
)


def damaged(ground: Ground, name: str, kind: str, file: str, rng: random.Random) -> Row:
    """Damages a file of a finished run and runs the command again."""
    run = ground.finished(name)
    place = harm(ground, name, kind, run / file, file, rng)
    surroundings = Place(before=without_privileges()) if kind == "unreadable" else None
    ended = ground.run(name, run, surroundings)
    if (run / file).exists():
        (run / file).chmod(0o644)
    verdict = unseemly(ended) or refused(ended, file=file)
    verdict = verdict or member_refused(ended, file) or failed(ended)
    verdict = verdict or told(compared(ground, name, run, best=False), ended, run, file)
    if kind == "unreadable" and verdict.outcome == REFUSED:  # once it is readable, nothing is lost
        again = finished(ground, name, run)
        verdict = verdict if again.outcome == SAME else again
    ground.drop(run)
    return Row(kind, name, file, place, *verdict)


def harm(
    ground: Ground, name: str, kind: str, path: pathlib.Path, file: str, rng: random.Random
) -> str:
    """Damages a file.

    Args:
      ground: has older versions.
      name: of the scene.
      kind: of `fault_kinds.DAMAGE`.
      path: the file.
      file: its path below the run's folder.
      rng: draws the place.

    Returns:
      The place of the damage.
    """
    content = bytearray(path.read_bytes())
    if kind == "deleted":
        path.unlink()
    elif kind == "unreadable":
        path.chmod(0)
    elif kind == "older version":
        older = ground.older(name, file)
        assert older is not None, file
        shutil.copyfile(older, path)
        return str(older.relative_to(ground.folder))
    elif content:
        byte, bit = rng.randrange(len(content)), rng.randrange(8)
        if kind == "truncated":
            path.write_bytes(content[:byte])
            return f"to {byte} of {len(content)} bytes"
        content[byte] ^= 1 << bit
        path.write_bytes(content)
        return f"byte {byte} of {len(content)}, bit {bit}"
    return ""
