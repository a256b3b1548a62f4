"""The page of claims says what its rows say."""

import importlib.util
import pathlib
import re

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "claims.md").read_text()


def loaded():
    path = ROOT / "experiments" / "claims.py"
    spec = importlib.util.spec_from_file_location("claims", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLAIMS = loaded()


@pytest.mark.parametrize("name", CLAIMS.TABLES)
def test_every_table_is_that_of_the_committed_rows(name):
    """After new rows: python experiments/claims.py --write."""
    mark = re.escape(CLAIMS.MARK.format(name))
    (shown,) = re.findall(rf"{mark}\n\n((?:\|.*\n)+)", PAGE)
    assert shown.strip() == CLAIMS.claims_table(name)


def test_the_page_has_no_other_table():
    marks = re.findall(r"<!-- python experiments/claims.py (\w+) -->\n\n\|", PAGE)
    assert sorted(marks) == sorted(CLAIMS.TABLES)
    assert len(re.findall(r"\n\n\|", PAGE)) == len(marks)
    assert CLAIMS.with_tables(PAGE) == PAGE


def test_an_interval_by_hand():
    """Mean 2, deviation 1 over three seeds: t(0.975, 2) = 4.3027 standard errors of 1 / sqrt 3."""
    found = CLAIMS.by_seed([1, 2, 3])
    half = 4.302653 / np.sqrt(3)
    np.testing.assert_allclose(found[:3], [2, 2 - half, 2 + half], rtol=1e-6)
    assert found.seeds == 3


def test_the_verdict_follows_from_the_interval():
    verdicts = [
        CLAIMS.Found(0.0, low, high, 3).verdict for low, high in ((1, 2), (-2, -1), (-1, 1))
    ]
    assert verdicts == ["seen", "contradicted", "not seen at this scale"]


def test_the_smallest_step_finds_the_one_that_goes_the_wrong_way():
    """Clean accuracy falls from beta 1 to 2 and rises from 2 to 4, by one point in each seed."""

    def run(value):
        number = {"column": "clean", "value": value, "low": value, "high": value}
        return {"rows": [{"title": "", "numbers": [number]}]}

    def member(beta, *values):
        sweep = {"line": "TRADES", "knob": "beta", "value": beta}
        return {"runs": [run(value) for value in values], "sweep": sweep}

    results = {"members": {
        "a": member(1, 0.9, 0.8), "b": member(2, 0.7, 0.5), "c": member(4, 0.71, 0.51),
    }}  # fmt: skip
    found = CLAIMS.smallest_step("clean", -1)(results)
    np.testing.assert_allclose(found[:3], [-0.01] * 3, atol=1e-12)
    assert found.verdict == "contradicted"
