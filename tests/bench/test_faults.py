"""The campaign of faults: a few trials, how their outcomes are told apart, and their table."""

import os
import random
import shutil
import subprocess
import sys

import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from benchmarks import fault_kinds, faults
from benchmarks.__main__ import benchmarks
from benchmarks.faults import _damage, _scenes, _stops, _surroundings, _verdict
from benchmarks.faults._contents import differing, of_training
from benchmarks.faults._running import Ended, hindered
from benchmarks.faults._verdict import Row, Verdict
from jaxrobust.evaluation import append_row, write_json
from jaxrobust.training import Checkpoints

TRACE = "Traceback (most recent call last)\n  File x\nKeyError: 1\n"


def test_the_table_counts_every_outcome_once(tmp_path):
    rows = [
        Row("one bit flipped", "train", "a", "", fault_kinds.REFUSED, "")._asdict(),
        Row("SIGKILL", "train", "", "", fault_kinds.SAME, "")._asdict(),
        Row("SIGKILL", "train", "", "", fault_kinds.LOST, "gone")._asdict(),
        Row("SIGKILL", "evaluate", "", "", fault_kinds.SAME, "")._asdict(),
    ]
    content = {"bench": "faults", "rows": rows, "machine": {}, "provenance": {}}
    machine = {"processor": "a CPU", "cores": 2, "busy": False}
    versions = {"versions": {"jax": "1"}, "devices": {"kind": "cpu", "platform": "cpu"}}
    content |= {"machine": machine, "provenance": versions}
    write_json(tmp_path / "faults.json", content)
    printed = CliRunner().invoke(benchmarks, ["table", str(tmp_path / "faults.json")]).output
    head, _, *lines = printed.splitlines()
    assert head.startswith("| fault (")
    assert lines == [
        "| SIGKILL | 2 | 3 | 2 | 0 | 0 | 1 | 0 | 0 | 0 |",
        "| one bit flipped | 1 | 1 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |",
    ]


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(0, "trained\n", "warning: one\nwarning: two\n"), None),
        (Ended(2, "", "jaxrobust: one line\n"), None),
        (Ended(0, TRACE, ""), fault_kinds.TRACEBACK),
        (Ended(-11, "", ""), fault_kinds.TRACEBACK),
        (Ended(None, "", ""), fault_kinds.LOST),
        (Ended(1, "", "one\ntwo\n"), fault_kinds.NOISE),
    ],
)
def test_what_no_command_may_do(ended, outcome):
    found = _verdict.unseemly([ended])
    assert (found and found.outcome) == outcome


def test_another_result_needs_a_line_that_names_the_file(tmp_path):
    wrong = Verdict(fault_kinds.WRONG)
    file = "checkpoints/30/default/manifest.ocdbt"
    named = f"checkpoint {tmp_path / 'checkpoints/30'} cannot be read (x); trying another one\n"
    for text, outcome in (
        (named, "told"),
        ("trained\n", "wrong"),
        (f"rows: {tmp_path}\n", "wrong"),
    ):
        assert _verdict.told(wrong, [Ended(0, text, "")], tmp_path, file).outcome == outcome


def test_a_member_that_fails_names_the_file():
    line = "a failed: PermissionError: [Errno 13] Permission denied: 'x/rows.jsonl'\n"
    found = _verdict.member_refused([Ended(1, line, "")], "members/a/rows.jsonl")
    assert found == Verdict(fault_kinds.REFUSED, line.strip())
    assert _verdict.member_refused([Ended(1, line, "")], "members/a/config.json") is None
    assert _verdict.member_refused([Ended(1, line + line, "")], "members/a/rows.jsonl") is None


def test_a_refusal_names_the_damaged_file():
    ended = [Ended(2, "", "jaxrobust: x/rows.jsonl is damaged\n")]
    assert _verdict.refused(ended, file="x/rows.jsonl").outcome == fault_kinds.REFUSED
    assert _verdict.refused(ended, file="x/config.json").outcome == fault_kinds.LOST
    assert _verdict.refused(ended).outcome == fault_kinds.REFUSED


def test_results_differ_at_paths():
    first = {"a": [{"x": 1}, {"x": 2}], "b": {"c": 3}}
    assert differing(first, first) == []
    assert differing(first, {"a": [{"x": 1}, {"x": 0}], "b": {}}) == ["a.1.x", "b.c"]
    assert differing(first, {"a": [{"x": 1}], "b": {"c": 3}}) == ["a"]


def test_a_best_checkpoint_that_cannot_be_read_is_a_difference(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints", keep=1)
    for step, score in ((1, 0.9), (2, 0.1)):
        store.save(step, {"w": jnp.full(3, step)}, validation=score)
    store.close()
    append_row(tmp_path / "metrics.jsonl", {"epoch": 1})
    whole = of_training(tmp_path)
    assert whole["best"]["step"] == 1
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "default" / "d")
    different = differing(of_training(tmp_path), whole)
    assert different
    assert all(path.startswith("best.leaves.") for path in different)
    shutil.rmtree(tmp_path / "checkpoints" / "2" / "default" / "d")
    with pytest.raises((ValueError, AttributeError)):  # what Orbax makes of it
        of_training(tmp_path)


def test_every_kind_and_command_has_its_trial():
    assert set(_scenes.SCENES) == set(fault_kinds.COMMANDS)
    assert set(_surroundings.TRIALS) == set(fault_kinds.SURROUNDINGS)
    for kind in fault_kinds.KINDS:
        assert any(faults._campaign.applicable(name, kind) for name in _scenes.SCENES)


@pytest.mark.parametrize("kind", ["deleted", "truncated", "one bit flipped", "unreadable"])
def test_damage_is_of_one_file_alone(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    place = _damage.harm(None, "train", kind, path, "file", random.Random(0))
    if kind == "deleted":
        assert not path.exists()
    elif kind == "unreadable":
        assert path.stat().st_mode & 0o777 == 0
    elif kind == "truncated":
        content = path.read_bytes()
        assert place == f"to {len(content)} of 100 bytes"
        assert bytes(range(100)).startswith(content)
    else:
        changed = [a ^ b for a, b in zip(path.read_bytes(), range(100), strict=True)]
        assert sum(bit.bit_count() for bit in changed) == 1


def test_a_training_that_starts_again_is_told_by_its_rows(tmp_path):
    (tmp_path / "a" / "checkpoints" / "10").mkdir(parents=True)
    file = tmp_path / "a" / "metrics.jsonl"
    rows = [f'{{"step": {step}, "seconds": 0.{step}}}\n' for step in (5, 10, 15)]
    file.write_text("".join(rows) + '{"step": 20, "sec')  # step 15 is trained again
    kept = _stops.kept_rows(tmp_path)
    assert [row["step"] for row in kept[file]] == [5, 10]
    file.write_text("".join([*rows[:2], '{"step": 15, "seconds": 0.9}\n']))
    assert _stops.trained_again(kept, tmp_path) is None
    file.write_text("".join(['{"step": 5, "seconds": 0.6}\n', *rows[1:]]))
    found = _stops.trained_again(kept, tmp_path)
    assert found == Verdict(fault_kinds.LOST, "trained again from scratch: a")


@pytest.mark.multiprocess
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_clock_jumps_and_the_disk_is_slow_where_a_command_is_hindered(tmp_path):
    code = (
        "import datetime, os, pathlib, time\n"
        "began, wall, day = time.monotonic(), time.time(), datetime.datetime.now()\n"
        "pathlib.Path('a').write_text('x')\n"
        "os.replace('a', 'b')\n"
        "passed = time.monotonic() - began\n"
        "time.sleep(max(2.1 - passed, 0))\n"
        "jumps = wall - time.time(), (day - datetime.datetime.now()).total_seconds()\n"
        "assert passed > 0.9 and all(3500 < jump < 3600 for jump in jumps), (passed, jumps)\n"
    )
    settings = {"JUMP_AFTER": 2, "DELAY": 0.2, "STALL_AFTER": 0, "STALL": 0.5}
    changes = hindered(tmp_path, settings)
    command = [sys.executable, "-S", "-c", code]
    subprocess.run(command, cwd=tmp_path, env=os.environ | changes, check=True)


def test_a_folder_that_is_in_use_is_refused(tmp_path):
    (tmp_path / "file").touch()
    done = CliRunner().invoke(benchmarks, ["faults", "--folder", str(tmp_path)])
    assert done.exit_code == 2
    assert "--folder must be a new or empty folder" in done.output


@pytest.mark.slow
@pytest.mark.multiprocess
def test_three_trials(tmp_path):
    kinds = ["SIGKILL", "one bit flipped", "odd path"]
    rows = list(faults.campaign(tmp_path / "f", trials=1, only=kinds, commands=["train"]))
    assert [row.kind for row in rows] == kinds
    assert not [row for row in rows if row.outcome in fault_kinds.UNWANTED]
