"""Commands stopped by signals at random moments, then run to their end."""

import random

from benchmarks.fault_kinds import STOPS, TRACEBACK
from benchmarks.faults._ground import Ground
from benchmarks.faults._running import Ended
from benchmarks.faults._scenes import SCENES
from benchmarks.faults._verdict import Row, Verdict, finished, unseemly

# Of an uninterrupted run's time. Earlier Python starts, which prints its own traceback of Ctrl-C.
EARLIEST, LATEST = 0.15, 1.0


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
    verdict = verdict or finished(ground, name, run)
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
