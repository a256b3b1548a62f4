"""Commands in difficult surroundings: disks, permissions, terminals, locales, paths."""

import contextlib
import pathlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator

from benchmarks.fault_kinds import WRONG
from benchmarks.faults._ground import Ground
from benchmarks.faults._running import (
    Ended,
    Place,
    hindered,
    limited_files,
    without_privileges,
)
from benchmarks.faults._verdict import (
    Row,
    Verdict,
    compared,
    failed,
    finished,
    refused,
    unseemly,
)

STALL = 30  # more than processes of a group may be silent
ODD = 'two  blanks, \'a "quote" and ümläuts'
Trial = Callable[[Ground, str, random.Random], tuple[str, Verdict]]


def surrounded(ground: Ground, name: str, kind: str, rng: random.Random) -> Row:
    """Runs a command in surroundings of a kind."""
    place, verdict = TRIALS[kind](ground, name, rng)
    return Row(kind, name, "", place, *verdict)


def _full_disk(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """A disk that becomes full; once there is room again, the same command ends as usual."""
    reference = ground.reference(name)
    needed = sum(file.stat().st_size for file in reference.run.rglob("*") if file.is_file())
    room = rng.randrange(needed)
    with _small_disk(ground.folder / "disk", 3 * needed + (4 << 20)) as disk:
        if disk is None:
            limit = max(room >> 14, 1)
            run, how = ground.fresh(name), Place(before=limited_files(limit))
            place = f"no tmpfs can be mounted here: files limited to {limit} kB"
        else:
            run, how = ground.fresh(name, disk), None
            _fill(disk, room)
            place = f"{room} bytes of room"
        ended = ground.run(name, run, how)
        verdict = unseemly(ended) or (None if refused(ended, (1, 2)) is not None else failed(ended))
        if disk is not None:
            (disk / "filler").unlink()
        verdict = verdict or finished(ground, name, run)
        said = ended[0].err.strip()
        ground.drop(run)
    message = verdict.message or said
    return place, verdict._replace(message=message)


@contextlib.contextmanager
def _small_disk(folder: pathlib.Path, size: int) -> Iterator[pathlib.Path | None]:
    """A mounted tmpfs of some bytes; `None` where none can be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = not subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        mounted = False
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def _fill(disk: pathlib.Path, room: int) -> None:
    """Writes a file that leaves some bytes of room."""
    with (disk / "filler").open("wb") as file:
        file.write(bytes(max(shutil.disk_usage(disk).free - room, 0)))


def _read_only_folder(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """A finished run in a folder without permission to write, then with it."""
    run = ground.finished(name)
    with _without_writing(run):
        ended = ground.run(name, run, Place(before=without_privileges()))
    verdict = unseemly(ended) or (None if refused(ended, (1, 2)) else failed(ended))
    verdict = verdict or _printed(ground, name, ended) or finished(ground, name, run)
    ground.drop(run)
    return "", verdict._replace(message=verdict.message or ended[0].err.strip())


def _printed(ground: Ground, name: str, ended: list[Ended]) -> Verdict | None:
    """Other accuracies than usual in the output of an evaluation that could write nothing."""
    found, wanted = _numbers(ended[0].out), _numbers(ground.reference(name).out)
    if ended[0].code or name not in ("evaluate", "autoattack") or found == wanted:
        return None
    return Verdict(WRONG, f"printed {found} instead of {wanted}")


def _read_only_parent(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """A new run in a folder without permission to write."""
    above = ground.folder / "trials" / "above"
    above.mkdir(parents=True, exist_ok=True)
    run = ground.fresh(name, above)
    with _without_writing(above):
        ended = ground.run(name, run, Place(before=without_privileges()))
    verdict = unseemly(ended) or refused(ended, (1, 2)) or failed(ended)
    verdict = verdict or compared(ground, name, run)
    ground.drop(above)
    return "", verdict


@contextlib.contextmanager
def _without_writing(folder: pathlib.Path) -> Iterator[None]:
    """A folder, and all in it, without permission to write."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in reversed(paths):
        path.chmod(modes[path] & 0o7555)
    try:
        yield
    finally:
        for path in paths:
            if path.exists():
                path.chmod(modes[path])


def _no_home(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """No home directory, or one that cannot be made and no folder of compiled programs."""
    changes: dict[str, str | None] = {"HOME": None, "XDG_CACHE_HOME": None}
    where = "not set"
    if rng.random() < 0.5:
        changes |= {"HOME": "/dev/null/home", "JAX_COMPILATION_CACHE_DIR": None}
        where = "/dev/null/home"
    return _as_usual(ground, name, Place(environment=changes), where)


def _slow_disk(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """Every write takes a little longer, and one of them very long."""
    after = rng.uniform(0, ground.reference(name).seconds)
    settings = {"DELAY": 0.02, "STALL_AFTER": after, "STALL": STALL}
    where = f"20 ms per write, {STALL} s for the first after {after:.2f} s"
    return _as_usual(ground, name, Place(environment=hindered(ground.folder, settings)), where)


def _clock_jumps_back(ground: Ground, name: str, rng: random.Random) -> tuple[str, Verdict]:
    """The clock of the day jumps back an hour while the command runs."""
    after = rng.uniform(0, ground.reference(name).seconds)
    place = Place(environment=hindered(ground.folder, {"JUMP_AFTER": after}))
    return _as_usual(ground, name, place, f"after {after:.2f} s")


def _as_usual(
    ground: Ground, name: str, place: Place, where: str = "", folder: pathlib.Path | None = None
) -> tuple[str, Verdict]:
    """A new run that must end as it does elsewhere."""
    run = ground.fresh(name, folder)
    ended = ground.run(name, run, place)
    verdict = unseemly(ended, one_line=place.columns is None) or refused(ended) or failed(ended)
    verdict = verdict or compared(ground, name, run)
    ground.drop(run)
    return where, verdict


def _usual(**place: object) -> Trial:
    """Surroundings in which a command must end as usual."""
    made = Place(**place)  # type: ignore[arg-type]
    return lambda ground, name, rng: _as_usual(ground, name, made)


def _numbers(out: str) -> list[str]:
    """The lines with accuracies."""
    return [line for line in out.splitlines() if " % [" in line]


TRIALS: dict[str, Trial] = {
    "full disk": _full_disk,
    "slow disk": _slow_disk,
    "clock jumps back": _clock_jumps_back,
    "read-only folder": _read_only_folder,
    "read-only parent": _read_only_parent,
    "no HOME": _no_home,
    "no terminal": _usual(environment={"TERM": None}, before=("sh", "-c", 'exec "$0" "$@" <&-')),
    "40 columns": _usual(columns=40),
    "locale C": _usual(environment={"LC_ALL": "C", "LANG": "C"}),
    "output in ASCII": _usual(environment={"PYTHONIOENCODING": "ascii"}),
    "odd path": lambda ground, name, rng: _as_usual(
        ground, name, Place(), folder=ground.folder / "trials" / ODD
    ),
}
