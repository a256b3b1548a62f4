"""Kills of the real `jaxrobust train`, and damage to its folder: what is lost, what is said."""

import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxrobust.training import load_run, read_rows

KILLS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
DAMAGE = ("deleted", "truncated", "one bit flipped")
LOST, WRONG, TRACEBACK = "lost", "another result", "traceback"
# Values of a row that two runs of the same numbers do not share.
CLOCKS = ("second",)
EXPERIMENT = """from jaxrobust.experiment import Experiment, Validation, use

config = Experiment(
    name="small",
    data=use("digits"),
    model=use("digits_cnn", width=4),
    objective=use("pgd_at", steps=2),
    threat=use("linf", eps=0.1),
    epochs=6,
    batch_size=256,
    validation=Validation(size=64, every=1, steps=2),
)
"""


class Campaign:
    """Trials in one folder, with the uninterrupted run that they are compared with.

    Args:
      folder: a folder that is made.
      seed: draws the moments of kills and the places of damage.
    """

    def __init__(self, folder: pathlib.Path, seed: int) -> None:
        folder.mkdir(parents=True)
        self._folder, self._random = folder, random.Random(seed)
        self._file = folder / "small.py"
        self._file.write_text(EXPERIMENT)
        self._whole = folder / "whole"
        start = time.monotonic()
        ended = self._wait(self._start(self._whole))
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        self._seconds = time.monotonic() - start
        self._expected = contents(self._whole)

    def kill(self, kind: str, times: int = 1) -> dict[str, Any]:
        """Stops a run at random moments, then resumes it to its end."""
        run = self._folder / f"run{self._random.random()}"
        moments = [self._random.uniform(0.2, 1.0) * self._seconds for _ in range(times)]
        for moment in moments:
            process = self._start(run)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.send_signal(KILLS[kind])
            said = self._wait(process).stderr
            if "Traceback" in said:
                return self._row(kind, TRACEBACK, said)
        ended = self._wait(self._start(run))
        if ended.returncode:
            return self._row(kind, LOST, ended.stderr)
        return self._row(kind, "same" if contents(run) == self._expected else WRONG)

    def damage(self, kind: str, name: str) -> dict[str, Any]:
        """Damages one file of a finished run, which is then asked to go on."""
        run = self._folder / f"run{self._random.random()}"
        shutil.copytree(self._whole, run)
        file = run / name
        content = bytearray(file.read_bytes())
        if kind == "deleted":
            file.unlink()
        elif kind == "truncated":
            file.write_bytes(content[: self._random.randrange(max(len(content), 1))])
        elif content:
            content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
            file.write_bytes(content)
        ended = self._wait(self._start(run))
        if "Traceback" in ended.stderr + ended.stdout:
            return self._row(kind, TRACEBACK, ended.stderr, name)
        if ended.returncode == 2 and len(ended.stderr.strip().splitlines()) <= 2:
            return self._row(kind, "refused", ended.stderr, name)
        if ended.returncode:
            return self._row(kind, LOST, ended.stderr, name)
        return self._row(kind, "same" if contents(run) == self._expected else WRONG, "", name)

    def files(self) -> list[str]:
        """Of the uninterrupted run, in its folder, but for locks."""
        found = sorted(path for path in self._whole.rglob("*") if path.is_file())
        return [str(path.relative_to(self._whole)) for path in found if path.suffix != ".lock"]

    def _start(self, run: pathlib.Path) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "jaxrobust.cli", "train", str(self._file)]
        command += ["--workdir", str(run), *(["--resume"] if run.exists() else [])]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ))

    def _wait(self, process: "subprocess.Popen[str]") -> "subprocess.CompletedProcess[str]":
        out, err = process.communicate(timeout=600)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def _row(self, kind: str, outcome: str, said: str = "", file: str = "") -> dict[str, Any]:
        return {"kind": kind, "file": file, "outcome": outcome, "said": said.strip()[-600:]}


def contents(run: pathlib.Path) -> dict[str, Any]:
    """What a run has to show: every array of its last network, and its rows without clocks."""
    found = load_run(run, checkpoint="last", say=lambda line: None)
    arrays = jax.tree.leaves(found.logits_fn)
    digest = hashlib.sha256()
    for leaf in arrays:
        digest.update(np.asarray(leaf).tobytes())
    rows = [
        {k: v for k, v in row.items() if not any(word in k for word in CLOCKS)}
        for row in read_rows(run / "metrics.jsonl")
    ]
    return {"network": digest.hexdigest(), "rows": rows}


def campaign(
    folder: pathlib.Path, *, kills: int, damages: int, seed: int
) -> Iterator[dict[str, Any]]:
    """So many kills, all kinds in turn, then so many damaged files, drawn by the seed."""
    trials, names = Campaign(folder, seed), list(KILLS)
    for number in range(kills):
        yield trials.kill(names[number % len(names)], times=1 + number % 2)
    cases = [(kind, name) for name in trials.files() for kind in DAMAGE]
    for kind, name in random.Random(seed).sample(cases, min(damages, len(cases))):
        yield trials.damage(kind, name)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown, one line per kind."""
    lines = ["| fault | trials | same result | one line, exit code 2 | lost | wrong | traceback |"]
    lines.append("|---|---|---|---|---|---|---|")
    for kind in [*KILLS, *DAMAGE]:
        of = [row["outcome"] for row in rows if row["kind"] == kind]
        counts = [of.count(o) for o in ("same", "refused", LOST, WRONG, TRACEBACK)]
        if of:
            lines.append("| " + " | ".join([kind, *map(str, [len(of), *counts])]) + " |")
    return "\n".join(lines)
