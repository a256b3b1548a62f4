"""The campaign of faults: one kill and one damaged file, and how rows are counted."""

import pytest

from benchmarks import faults


def test_the_table_counts_every_outcome_once():
    rows = [
        {"kind": "SIGKILL", "outcome": "same"},
        {"kind": "SIGKILL", "outcome": faults.LOST},
        {"kind": "deleted", "outcome": "refused"},
    ]
    *_, killed, deleted = faults.table(rows).splitlines()
    assert killed == "| SIGKILL | 2 | 1 | 0 | 1 | 0 | 0 |"
    assert deleted == "| deleted | 1 | 0 | 1 | 0 | 0 | 0 |"


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_killed_run_ends_as_if_nothing_had_been(tmp_path):
    (row,) = faults.campaign(tmp_path / "faults", kills=1, damages=0, seed=0)
    assert row["outcome"] == "same", row
