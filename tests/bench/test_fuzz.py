"""The fuzzers: their seeds are read, they find planted faults, and they find nothing else."""

import importlib.util
import json
import pathlib
import shutil

import pytest

from benchmarks.fuzz import READERS, _campaign
from benchmarks.fuzz._edits import edited

SEEDS = sorted(_campaign.SEEDS.glob("*/*"))
FUZZER = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform"
)


def test_every_reader_has_seeds():
    assert {path.parent.name for path in SEEDS} == set(READERS)


@pytest.mark.parametrize(
    "seed", [path for path in SEEDS if path.suffix != ".bin"], ids=lambda path: path.name
)
def test_seeds_are_good_files(seed, tmp_path):
    reader = READERS[seed.parent.name]
    assert seed.suffix == reader.ending
    assert reader.read(pathlib.Path(shutil.copy(seed, tmp_path / f"file{reader.ending}")))


def test_edits_leave_json():
    seeds = [path for path in SEEDS if path.parent.name == "config" and path.suffix == ".json"]
    before = [json.loads(seed.read_text()) for seed in seeds]
    found = {edited(bytes([1]), seeds, lambda most, n=n: n % most) for n in range(200)}
    assert sum(json.loads(content) not in before for content in found) > 50
    assert edited(b"{]", seeds, lambda most: 0) == b"{]"


@pytest.mark.slow
@pytest.mark.multiprocess
@FUZZER
@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_found_in_twenty_seconds(reader, tmp_path):
    row = _campaign.fuzzed(reader, tmp_path, seconds=20, seed=1)
    assert not row.problem, row
    assert row.files > 200
    assert row.edges > 20


PLANTED = {
    "an undocumented exception": ("raise KeyError(content[0])", "KeyError"),
    "slowness": ("while time.process_time() < start + 3: pass", "AssertionError: 3.0 s for"),
    "memory": ("return bytes(200 * 2**20)", "bytes of memory for a file of"),
    "a command": ("os.system('true')", "AssertionError: reading tried os.system"),
    "an import": ("import this", "AssertionError: reading tried import"),
}


@pytest.mark.slow
@pytest.mark.multiprocess
@FUZZER
@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, tmp_path, monkeypatch):
    """In a copy of the repository whose reader of npz has a fault."""
    body, message = PLANTED[fault]
    for part in ("benchmarks", "jaxrobust", "tests/golden/fuzz"):
        shutil.copytree(_campaign.ROOT / part, tmp_path / part)
    file = tmp_path / "benchmarks" / "fuzz" / "_readers.py"
    text = file.read_text()
    planted = (
        f"import os, time\n\n\ndef npz(path):\n    content, start = path.read_bytes(), "
        f"time.process_time()\n    if len(content) % 2:\n        {body}\n    return content\n\n\n"
    )
    first, rest = text.split("def npz(")
    file.write_text(first + planted + rest[rest.index("def image(") :])
    monkeypatch.setattr(_campaign, "ROOT", tmp_path)
    row = _campaign.fuzzed("npz", tmp_path, seconds=30, seed=1)
    assert message in row.problem, row
    assert len(bytes.fromhex(row.file)) % 2
