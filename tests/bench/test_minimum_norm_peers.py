"""Minimum-norm attacks beside another library's: what is compared, and what is only said."""

import json

import numpy as np
import pytest

from benchmarks import minimum_norm_peers as bench
from benchmarks.markdown import RENDERED

SMALL = {"steps": 50, "points": 4, "repeats": 1, "cases": (("deepfool", "linf"),)}


@pytest.fixture
def peer(monkeypatch):
    """Sets the distances that the other library finds, from ours."""

    def become(change):
        def theirs(*arguments):
            call = bench._ours(*arguments).call
            return lambda: change(np.array(call()))

        monkeypatch.setattr(bench, "_version", lambda: "0.2.8")
        monkeypatch.setattr(bench, "has_torch", lambda: True)
        monkeypatch.setattr(bench, "_theirs", theirs)

    return become


def table():
    rows = [row._asdict() for row in bench.minimum_norm_peers(**SMALL)]
    (cells,) = RENDERED["minimum-norm peers"](json.loads(json.dumps({"rows": rows})))[1:]
    return rows[0], cells


def test_a_missing_library_is_said(monkeypatch):
    monkeypatch.setattr(bench, "_version", lambda: "")
    row, cells = table()
    assert row["found"] == 4
    assert row["seconds"] > 0
    assert "not installed" in row["problem"]
    assert cells[-4:] == [row["problem"], "-", "-", "-"]


def test_equal_distances_are_compared(peer):
    peer(lambda distances: distances)
    row, cells = table()
    assert row["problem"] == ""
    assert row["peer_median"] == row["median"]
    assert cells[-1] == f"{row['peer_seconds'] / row['seconds']:.2f}"


@pytest.mark.parametrize(
    "change", [lambda d: d * 1.2, lambda d: np.where(np.arange(4) < 1, np.inf, d)]
)
def test_other_distances_are_not_compared(peer, change):
    peer(change)
    assert table()[0]["problem"] == "the distances differ"
