"""Two processes in one folder."""

import random

from benchmarks.faults._ground import Ground
from benchmarks.faults._running import Ended
from benchmarks.faults._scenes import SCENES
from benchmarks.faults._verdict import Row, Verdict, compared, failed, refused, unseemly


def twice(ground: Ground, name: str, rng: random.Random) -> Row:
    """The same command twice in one folder: one of them does the work, none disturbs the other."""
    run, reference, scene = ground.fresh(name), ground.reference(name), SCENES[name]
    (first,) = ground.start(scene, reference.file, run)
    delay = rng.uniform(0, 0.7) * reference.seconds
    first.alive_after(delay)
    (second,) = ground.start(scene, reference.file, run)
    ended = [first.end(), second.end()]
    verdict = _each(ended) or (failed(ended) if all(e.code for e in ended) else None)
    verdict = verdict or compared(ground, name, run)
    ground.drop(run)
    said = " ".join(process.err.strip() for process in ended)
    return Row("twice at once", name, "", f"{delay:.2f} s", *_with(verdict, said))


def evaluated(ground: Ground, name: str, rng: random.Random) -> Row:
    """A run that is evaluated again and again while it is trained."""
    run, reference = ground.fresh(name), ground.reference(name)
    ground.reference("evaluate")
    (training,) = ground.start(SCENES[name], reference.file, run)
    delay = rng.uniform(0, 0.7) * reference.seconds
    training.alive_after(delay)
    evaluations = []
    while training.alive_after(0):
        evaluations += ground.run("evaluate", run)
    ended = [training.end()]
    verdict = _each(evaluations) or unseemly(ended) or failed(ended)
    verdict = verdict or compared(ground, name, run)
    ground.drop(run)
    place = f"{len(evaluations)} from {delay:.2f} s on"
    return Row("evaluated meanwhile", name, "", place, *verdict)


def _each(ended: list[Ended]) -> Verdict | None:
    """What is wrong with commands that may succeed, or be refused in one line."""
    for process in ended:
        found = unseemly([process]) or (None if refused([process]) else failed([process]))
        if found is not None:
            return found
    return None


def _with(verdict: Verdict, said: str) -> Verdict:
    return verdict._replace(message=verdict.message or said)
