"""Commands stopped by signals at random moments, then run to their end."""

import pathlib
import random
from typing import Any

from benchmarks.fault_kinds import LOST, SAME, STOPS, TRACEBACK
from benchmarks.faults._ground import Ground
from benchmarks.faults._running import Ended
from benchmarks.faults._scenes import SCENES
from benchmarks.faults._verdict import Row, Verdict, finished, unseemly
from jaxrobust.training import read_rows

# Of an uninterrupted run's time. Earlier Python starts, which prints its own traceback of Ctrl-C.
EARLIEST, LATEST = 0.15, 1.0
Kept = dict[pathlib.Path, list[dict[str, Any]]]


def stopped(ground: Ground, name: str, kind: str, rng: random.Random) -> Row:
    """Stops a command once or twice at random moments, then runs it to its end."""
    signal_name, times = STOPS[kind]
    run, scene, reference = ground.fresh(name), SCENES[name], ground.reference(name)
    moments, verdict = [], None
    for _ in range(rng.choice((1, 1, 2))):
        moment = rng.uniform(EARLIEST, LATEST) * reference.seconds
        started = ground.start(scene, reference.file, run)
        victim = started[rng.randrange(len(started))]
        moments.append(f"{moment:.2f} s")
        within = rng.uniform(0.05, 1.0)
        if victim.alive_after(moment):
            victim.stop(signal_name, times, within)
        verdict = _ending([process.end() for process in started])
        if verdict is not None:
            break
    kept = kept_rows(run)
    verdict = verdict or finished(ground, name, run)
    if verdict.outcome == SAME:
        verdict = trained_again(kept, run) or verdict
    ground.drop(run)
    return Row(kind, name, "", ", ".join(moments), *verdict)


def _ending(ended: list[Ended]) -> Verdict | None:
    """What is wrong with the end of a stopped command, if anything."""
    found = unseemly(ended)
    if found is not None and found.outcome == TRACEBACK and len(ended) > 1:
        # The survivor of several processes may be ended by JAX itself, with the lines of a crash.
        crashed = [process for process in ended if "Traceback" in process.text]
        return found if crashed else None
    return found


def kept_rows(run: pathlib.Path) -> Kept:
    """The rows of every training in a folder that its latest checkpoint makes final.

    They hold speeds, so the same training, done again, writes other rows.
    """
    kept = {}
    for file in run.rglob("metrics.jsonl"):
        folder = file.with_name("checkpoints")
        steps = [int(at.name) for at in folder.glob("*") if at.name.isdecimal()]
        last = max(steps, default=-1)
        kept[file] = [row for row in read_rows(file) if row["step"] <= last]
    return kept


def trained_again(kept: Kept, run: pathlib.Path) -> Verdict | None:
    """The first training whose kept rows are others now."""
    for file, rows in kept.items():
        if read_rows(file)[: len(rows)] != rows:
            return Verdict(LOST, f"trained again from scratch: {file.relative_to(run).parent}")
    return None
