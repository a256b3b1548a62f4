"""Damaged checkpoints and files of a run: what is intact beside them is still found."""

import json
import pathlib
import re
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest

from jaxrobust.evaluation import append_row, write_json
from jaxrobust.training import CheckpointError, Checkpoints, read_rows
from jaxrobust.training._checkpoints import METADATA
from jaxrobust.training._reporting import MetricsFile

SCORES = {1: 0.3, 2: 0.9, 3: 0.5}


def state_of(step):
    return {"w": jnp.arange(2000.0) + step, "b": {"c": jnp.full(3, step, jnp.float32)}}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Checkpoints of the steps 1, 2 (the best) and 3."""
    folder = tmp_path_factory.mktemp("three")
    store = Checkpoints(folder, keep=3)
    for step, score in SCORES.items():
        store.save(step, state_of(step), validation=score)
        store.wait()
    store.close()
    return folder


def deleted(path):
    path.unlink()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path):
    path.write_bytes(b"\xff" * path.stat().st_size)


def flipped(path):
    """One bit in the middle, which arrays and numbers in JSON do not notice themselves."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("harm", [deleted, cut, overwritten, flipped])
@pytest.mark.parametrize("victim", [2, 3], ids=["best", "last"])
def test_damage_to_any_file_of_a_checkpoint_is_survived(three, tmp_path, harm, victim, capfd):
    names = [p.relative_to(three) for p in (three / str(victim)).rglob("*") if p.is_file()]
    assert len(names) > 8
    for number, name in enumerate(names):
        folder, lines = tmp_path / str(number), []
        shutil.copytree(three, folder)
        harm(folder / name)
        store = Checkpoints(folder, keep=3, warn=lines.append)
        last, state = store.restore_last(state_of(0))
        chex.assert_trees_all_equal(state, state_of(last))
        assert last == 3 or (last, victim) == (2, 3), name
        best, state = store.restore_best(state_of(0))
        chex.assert_trees_all_equal(state, state_of(best))
        assert best == 2 or (best, victim) == (3, 2), name
        assert len(lines) <= 2, lines  # one for each of the two
        assert not any("\n" in line for line in lines)
        if not lines:
            continue
        # Training goes on, and what it saves is there.
        last, _ = store.restore_last(state_of(0))
        store.save(last + 1, state_of(last + 1), validation=0.1)
        store.close()
        assert Checkpoints(folder).restore_last(state_of(0))[0] == last + 1, name
    assert capfd.readouterr() == ("", "")


def test_without_the_best_and_the_latest_the_next_is_taken(three, tmp_path):
    folder, lines = tmp_path / "two", []
    shutil.copytree(three, folder)
    for step in (2, 3):
        for file in (folder / str(step)).rglob("*"):
            if file.is_file():
                overwritten(file)
    store = Checkpoints(folder, warn=lines.append)
    best, state = store.restore_best(state_of(0))
    assert best == 1
    chex.assert_trees_all_equal(state, state_of(1))
    assert len(lines) >= 2


def test_without_the_best_the_latest_is_taken(three, tmp_path):
    folder = tmp_path / "four"
    shutil.copytree(three, folder)
    store = Checkpoints(folder, keep=4)
    store.save(4, state_of(4), validation=0.95)
    store.close()
    files = [path for path in (folder / "4").rglob("*") if path.is_file()]
    overwritten(max(files, key=lambda path: path.stat().st_size))  # its score can be read
    best, state = Checkpoints(folder, warn=lambda line: None).restore_best(state_of(0))
    assert best == 3
    chex.assert_trees_all_equal(state, state_of(3))


def test_no_flipped_bit_becomes_another_weight(three, tmp_path):
    """Files of arrays have no checksums: whatever is restored is what was saved."""
    data = max((p for p in (three / "3").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content, found = data.read_bytes(), []
    for number, byte in enumerate(range(7, len(content), len(content) // 12)):
        folder, lines = tmp_path / str(number), []
        shutil.copytree(three, folder)
        changed = bytearray(content)
        changed[byte] ^= 1
        (folder / data.relative_to(three)).write_bytes(changed)
        step, state = Checkpoints(folder, warn=lines.append).restore_last(state_of(0))
        chex.assert_trees_all_equal(state, state_of(step))
        assert (step, len(lines)) in ((3, 0), (2, 1)), lines
        found += lines
    assert any("changed on the disk" in line for line in found)


def test_a_damaged_score_does_not_choose_another_checkpoint(three, tmp_path):
    for number, content in enumerate([None, b"{", b'{"validation_robust_accuracy": 0.2}']):
        folder, lines = tmp_path / str(number), []
        shutil.copytree(three, folder)
        file = folder / "2" / "metrics" / "metrics"
        file.unlink() if content is None else file.write_bytes(content)
        store = Checkpoints(folder, warn=lines.append)
        best = store.best_step()
        if content is None or content == b"{":  # there is another copy
            assert (best, lines) == (2, [])
            store.save(4, state_of(4), validation=0.1)
            store.close()
            assert json.loads(file.read_bytes()) == {"validation_robust_accuracy": 0.9}
        else:
            assert best == 3
            assert "0.2 in " in lines[0]
            assert "0.9 in _CHECKPOINT_METADATA" in lines[0]


def test_training_goes_on_beside_metadata_that_orbax_refuses(three, tmp_path):
    """A changed key is still JSON: for Orbax's manager it is an unknown one, in any checkpoint."""
    content = (three / "1" / METADATA).read_bytes()
    keys = [found.start(1) for found in re.finditer(rb'"([a-z_]+)": ', content)]
    refused = 0
    for number, byte in enumerate(keys):
        folder, lines = tmp_path / str(number), []
        shutil.copytree(three, folder)
        changed = bytearray(content)
        changed[byte] ^= 1
        (folder / "1" / METADATA).write_bytes(changed)
        store = Checkpoints(folder, keep=4, warn=lines.append)
        store.save(4, state_of(4), validation=0.1)
        store.close()
        assert Checkpoints(folder).steps() == [1, 2, 3, 4]
        if lines:
            refused += 1
            assert len(lines) == 1
            assert f"{folder / '1' / METADATA} is damaged" in lines[0]
            kept = json.loads((folder / "1" / METADATA).read_bytes())["custom_metadata"]
            lost = b"custom_metadata" not in changed
            assert kept["scores"] == ({} if lost else {"validation_robust_accuracy": 0.3})
    assert refused > 3


def test_a_score_that_cannot_be_read_is_replaced(three, tmp_path):
    """A folder stands for what nobody may read, which is nothing to root."""
    shutil.copytree(three, tmp_path / "run")
    file = tmp_path / "run" / "2" / "metrics" / "metrics"
    file.unlink()
    file.symlink_to(tmp_path)
    store = Checkpoints(tmp_path / "run")
    assert store.best_step() == 2
    store.save(4, state_of(4), validation=0.1)
    store.close()
    assert json.loads(file.read_bytes()) == {"validation_robust_accuracy": 0.9}


def test_entries_that_are_no_checkpoints(three, tmp_path):
    folder, lines = tmp_path / "run", []
    shutil.copytree(three, folder)
    for name in ("notes", "9", "007"):
        (folder / name).mkdir()
    shutil.copytree(folder / "3", folder / "3 (copy)")
    (folder / "12").write_text("a file")
    store = Checkpoints(folder, warn=lines.append)
    assert store.best_step() == 2
    step, state = store.restore_last(state_of(0))
    chex.assert_trees_all_equal(state, state_of(3))
    assert step == 3
    assert len(lines) == 1
    assert "9 cannot be read" in lines[0]
    # Orbax would not save a step before 9, without a word.
    store.save(4, state_of(4))
    store.close()
    assert Checkpoints(folder).restore_last(state_of(0))[0] == 4
    assert (folder / "damaged-9").is_dir()


def test_a_checkpoint_under_another_step_is_damaged(tmp_path):
    from typing import NamedTuple

    class State(NamedTuple):
        step: jax.Array

    store = Checkpoints(tmp_path)
    store.save(3, State(jnp.int32(3)))
    store.close()
    shutil.copytree(tmp_path / "3", tmp_path / "7")
    lines = []
    step, _ = Checkpoints(tmp_path, warn=lines.append).restore_last(State(jnp.int32(0)))
    assert step == 3
    assert "it holds step 3" in lines[0]


def test_a_step_before_a_later_one_is_not_dropped_silently(three, tmp_path):
    shutil.copytree(three, tmp_path / "run")
    store = Checkpoints(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"step 0 cannot be saved: .* holds the later step 3"):
        store.save(0, state_of(0))
    store.close()


def test_reading_changes_nothing(three, tmp_path):
    store = Checkpoints(tmp_path / "none")
    assert store.steps() == []
    assert store.best_step() is None
    store.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("torn", ['{"run": 2, "acc', '{"run": 2}', "\x00\x00\x00", "\xff\xfe"])
def test_a_row_after_a_torn_line_is_kept(tmp_path, torn):
    path = tmp_path / "results.jsonl"
    append_row(path, {"run": 1})
    path.write_bytes(path.read_bytes() + torn.encode("latin-1"))
    append_row(path, {"run": 3})
    append_row(path, {"run": 4})
    complete = [2] if torn == '{"run": 2}' else []
    assert [row["run"] for row in read_rows(path)] == [1, *complete, 3, 4]


def test_no_flipped_bit_becomes_another_number(tmp_path):
    path, row = tmp_path / "rows.jsonl", {"step": 5, "loss": 0.25}
    append_row(path, row)
    content = path.read_bytes()
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        for found in read_rows(path):  # a bit of the checksum's name may leave it as an entry
            assert {name: found.get(name) for name in row} == row
    path.write_text('{"step": 5, "loss": 0.25}\n{}\n')  # by hand, or by an earlier version
    assert read_rows(path) == [row, {}]


def test_metrics_go_on_after_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = ['{"step": 5}', '{"step": 10}', "[]", '{"other": 1}', '{"step": "x"}', '{"step": 15, ']
    path.write_text("\n".join(rows))
    file = MetricsFile(path, resume_step=10)
    assert read_rows(path) == [{"step": 5}, {"step": 10}]
    path.write_bytes(path.read_bytes() + b'{"step": 15')
    file.write(20, {"loss": 0.5})
    assert [row["step"] for row in read_rows(path)] == [5, 10, 20]


def test_a_row_is_one_write(tmp_path, monkeypatch):
    import builtins

    sizes, real = [], builtins.open

    def watching(*args, **kwargs):
        file = real(*args, **kwargs)
        if "a" not in str(args[1:]):
            return file

        class Watched:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, content):
                sizes.append(len(content))
                return file.write(content)

            def __getattr__(self, name):
                return getattr(file, name)

        return Watched()

    monkeypatch.setattr(builtins, "open", watching)
    append_row(tmp_path / "rows.jsonl", {"text": "x" * 100_000})
    assert len(sizes) == 1


def test_a_full_disk_is_said():
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full")
    with pytest.raises(OSError, match="No space left|disk is full"):
        append_row(full, {"run": 1})


def test_rows_are_strict_json(tmp_path):
    values = {"a": float("nan"), "b": [float("inf"), -float("inf")], "c": {"d": 1.5}}
    append_row(tmp_path / "rows.jsonl", values)
    write_json(tmp_path / "one.json", values)
    expected = {"a": "nan", "b": ["inf", "-inf"], "c": {"d": 1.5}}

    def refuse(constant):
        raise AssertionError(constant)

    for name in ("rows.jsonl", "one.json"):
        text = (tmp_path / name).read_text()
        read = json.loads(text, parse_constant=refuse)
        assert {key: value for key, value in read.items() if key != "crc32"} == expected
    assert read_rows(tmp_path / "rows.jsonl") == [expected]
    assert float(expected["b"][1]) == -float("inf")
    assert not list(tmp_path.glob("*.tmp*"))
