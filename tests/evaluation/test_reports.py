"""Reports: one line, a page in notebooks, a table of points, and files that are read back whole."""

import dataclasses
import json
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import evaluation, threats
from jaxrobust.files import to_json
from jaxrobust.inputs import InputError

IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (24, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)


def linear(weights, images):
    return (images.reshape(len(images), -1) - 0.5) @ weights


NETWORK = jax.tree_util.Partial(linear, jnp.asarray(WEIGHTS))
CLASSES = np.asarray(NETWORK(IMAGES)).argmax(-1)
LABELS = np.where(np.arange(24) < 2, (CLASSES + 1) % 4, CLASSES)  # two clean errors
DATA = (NETWORK, IMAGES, LABELS)
BALL = {"norm": "linf", "eps": 0.025}
SHORT = {"version": "custom", "attacks": ["apgd-ce", "fab-t"], "steps": 5}

MAKE = {
    "report": lambda: evaluation.autoattack(*DATA, **BALL, **SHORT, individual=True),
    "verdict": lambda: evaluation.verdict(*DATA, **BALL),
    "distances": lambda: evaluation.distances(
        *DATA, norm="l2", attacks=evaluation.minimum_norm_attacks("l2", steps=10)
    ),
    "audit": lambda: evaluation.audit(*DATA, **BALL, steps=5, queries=5, rounds=1),
    "bracket": lambda: evaluation.bracket(
        *DATA, threat=threats.linf(0.025), cheap=("ibp",), costly=(), attacks={}
    ),
    "result": lambda: evaluation.evaluate(
        *DATA, attacks=evaluation.pgd_attacks(threats.linf(0.025), steps=5)
    ),
}
COLUMNS = {
    "report": ["label", "prediction", "clean", "apgd-ce", "fab-t", "distance fab-t"],
    "verdict": ["label", "prediction", "clean", "cr", "pma", "apgd-malt", "square"],
    "distances": ["label", "prediction", "clean", "distance", "found_by", "distance fmn"],
    "audit": ["label", "clean", "before", "masked"],
    "bracket": ["verdict", "decided_by", "margin"],
    "result": ["clean", "pgd", "margin_pgd"],
}
SAVED = ("report", "verdict", "distances")


@pytest.fixture(scope="module")
def made():
    return {name: make() for name, make in MAKE.items()}


@pytest.fixture
def columns(monkeypatch):
    """`to_dataframe` returns what it gives pandas, which need not be installed."""
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", pandas)


@pytest.mark.parametrize("name", MAKE)
def test_a_report_is_one_line_and_a_page_in_a_notebook(made, name):
    report = made[name]
    line = repr(report)
    assert line.startswith(f"<{type(report).__name__}: ")
    assert line.endswith(">")
    assert len(line) < 200
    assert "\n" not in line
    assert "24 points" in line
    page = report._repr_html_()
    assert page.startswith("<pre>")
    assert report.text().splitlines()[0] in page


@pytest.mark.parametrize("name", MAKE)
def test_the_points_as_a_dataframe(made, name, columns, monkeypatch):
    table = made[name].to_dataframe()
    assert {*COLUMNS[name]} <= {*table}
    assert {np.shape(column) for column in table.values()} == {(24,)}
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ValueError, match="to_dataframe needs pandas"):
        made[name].to_dataframe()


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_report_is_read_back_whole(made, name, columns, tmp_path):
    report = made[name]
    report.save(tmp_path)
    loaded = type(report).load(tmp_path)
    stored = json.loads((tmp_path / f"{name}.json").read_text())
    assert loaded.origin == stored["provenance"]
    expected = dataclasses.replace(report, seconds=stored["seconds"], origin=loaded.origin)
    assert json.loads(to_json(loaded.to_dict())) == stored
    assert loaded.text() == expected.text()
    for field in dataclasses.fields(report):
        want, got = getattr(expected, field.name), getattr(loaded, field.name)
        if isinstance(want, tuple):  # attacks, checks: JSON has lists in them
            assert json.loads(to_json([*want])) == json.loads(to_json([*got])), field.name
        else:
            jax.tree.map(np.testing.assert_array_equal, want, got)
    assert [*loaded.to_dataframe()] == [*report.to_dataframe()], "the order of the attacks"
    again = tmp_path / "again"
    loaded.save(again)
    assert (again / f"{name}.json").read_text() == (tmp_path / f"{name}.json").read_text()


@pytest.mark.parametrize("name", ["verdict", "distances"])
def test_a_report_without_its_images_says_so(made, name, tmp_path):
    made[name].save(tmp_path, images=False)
    with pytest.raises(InputError, match=r"adversarial\.npz is missing; save with images=True"):
        type(made[name]).load(str(tmp_path))


def test_what_is_no_saved_report_is_named(made, tmp_path):
    load = evaluation.Report.load
    with pytest.raises(InputError, match="folder must be a path, got 3"):
        load(3)
    with pytest.raises(InputError, match=r"must hold a saved Report, .*report\.json is missing$"):
        load(tmp_path)
    made["report"].save(tmp_path, picture=False)
    good = (tmp_path / "report.json").read_text()
    told = json.loads(good)
    for text, reason in {
        good[:50]: "JSONDecodeError|Expecting|Unterminated",
        "[]": "TypeError",
        to_json({k: v for k, v in told.items() if k != "cost"}): "KeyError: 'cost'",
    }.items():
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(InputError, match=f"is damaged or of another version: .*({reason})"):
            load(tmp_path)
    told["clean_accuracy"]["correct"] -= 1
    (tmp_path / "report.json").write_text(to_json(told))
    with pytest.raises(InputError, match="come from two evaluations"):
        load(tmp_path)
    (tmp_path / "report.json").write_text(good)
    archive = tmp_path / "adversarial.npz"
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged or of another version"):
        load(tmp_path)


def test_a_report_is_escaped_in_a_page(made):
    report = dataclasses.replace(made["report"], deviations=("a <b> & c",))
    assert "a &lt;b&gt; &amp; c" in report._repr_html_()
