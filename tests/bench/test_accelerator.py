"""The sitting on an accelerator, rehearsed."""

import time

import pytest

from benchmarks import accelerator
from jaxrobust.rows import read_rows


@pytest.mark.slow
def test_every_part_runs_and_writes_its_rows(tmp_path):
    accelerator.main(["--out", str(tmp_path), "--tiny"])
    rows = read_rows(tmp_path / "accelerator.jsonl")
    problems = [row["problem"] for row in rows if row.get("problem")]
    assert set(problems) <= {"PyTorch is not installed"}
    assert [part for part in accelerator.PARTS if part in {row["part"] for row in rows}] == list(
        accelerator.PARTS
    )
    assert all(row["data"] == "synthetic patterns" and row["machine"] for row in rows)
    steps = [row for row in rows if "images_per_second" in row]
    assert len(steps) == 4
    assert all(row["images_per_second"] > 0 and row["share"] > 0 for row in steps)
    (trained,) = (row for row in rows if "epochs" in row)
    assert trained["steps"] == 4
    attacked = [row for row in rows if "attack" in row]
    assert [row["attack"] for row in attacked] == ["apgd-ce alone"] * 3


def sitting(folder, ends):
    return accelerator.Sitting(folder, None, "none", True, 1, 4, ends)


def test_a_part_that_fails_does_not_cost_the_others(tmp_path, monkeypatch):
    """Rows are written as they are found, also those before a failure."""

    def failing(sitting):
        yield {"first": 1}
        raise RuntimeError("no memory")

    parts = {"bad": failing, "good": lambda sitting: iter([{"second": 2}])}
    monkeypatch.setattr(accelerator, "PARTS", parts)
    path = accelerator.sit(sitting(tmp_path, time.monotonic() + 60), say=lambda line: None)
    rows = read_rows(path)
    assert [
        (row["part"], row.get("first"), row.get("problem"), row.get("second")) for row in rows
    ] == [
        ("bad", 1, None, None),
        ("bad", None, "RuntimeError: no memory", None),
        ("good", None, None, 2),
    ]
    late = accelerator.sit(sitting(tmp_path / "late", time.monotonic() - 1), say=lambda line: None)
    assert [row["problem"] for row in read_rows(late)] == ["no time was left"] * 2


def test_data_need_a_label(tmp_path, capsys):
    with pytest.raises(SystemExit):
        accelerator.main(["--out", str(tmp_path), "--data", "x.npz"])
    assert "rows must say what the images are" in capsys.readouterr().err
