"""Every reader under libFuzzer, one after the other."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks.fuzz._readers import READERS

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = ROOT / "tests" / "golden" / "fuzz"


class Row(NamedTuple):
    """One reader.

    Attributes:
      reader: of `READERS`.
      seconds: of fuzzing.
      files: that were tried.
      edges: of the reader's code that they reached.
      problem: what was wrong with the last one; empty if nothing was.
      file: that one, in hexadecimal digits.
    """

    reader: str
    seconds: int
    files: int
    edges: int
    problem: str
    file: str


def campaign(*, readers: Sequence[str] = (), seconds: int, seed: int = 1) -> Iterator[Row]:
    """Fuzzes readers, from the files in `tests/golden/fuzz`.

    Args:
      readers: of `READERS`; default all.
      seconds: for each.
      seed: of libFuzzer.

    Returns:
      An iterator of rows.
    """
    for reader in readers or READERS:
        with tempfile.TemporaryDirectory(prefix="jaxrobust-fuzz-") as folder:
            yield fuzzed(reader, pathlib.Path(folder), seconds=seconds, seed=seed)


def fuzzed(reader: str, folder: pathlib.Path, *, seconds: int, seed: int) -> Row:
    """Fuzzes one reader; the folder gets what libFuzzer keeps."""
    shutil.copytree(SEEDS / reader, folder / "corpus")
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-artifact_prefix={folder}/found-",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        "-print_final_stats=1",
    ]
    command = [sys.executable, "-m", "benchmarks.fuzz._worker", reader, *options]
    environment = {**os.environ, "TMPDIR": str(folder), "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run(
        [*command, str(folder / "corpus")], cwd=ROOT, env=environment, capture_output=True
    )
    told = (ended.stdout + ended.stderr).decode(errors="replace")
    found = [path for path in folder.glob("found-*") if "slow-unit" not in path.name]
    content = found[0].read_bytes().hex() if found else ""
    files = _last(r"number_of_executed_units: (\d+)", told) or _last(r"#(\d+)\s", told)
    problem = "" if ended.returncode == 0 else _problem(told)
    return Row(reader, seconds, files, _last(r"cov: (\d+)", told), problem, content[:4096])


def _last(pattern: str, text: str) -> int:
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else 0


def _problem(told: str) -> str:
    """The exception that nothing documents, or libFuzzer's own words."""
    lines = told.splitlines()
    for place, line in enumerate(lines):
        if "Uncaught Python exception" in line:
            return " ".join(lines[place + 1 : place + 2])[:300]
    errors = [line for line in lines if "ERROR: libFuzzer" in line] or lines[-1:]
    return errors[0][:300] if errors else "no output"
