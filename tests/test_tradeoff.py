"""The report of a trade-off: all figures, from rows, done once."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxrobust.commands import _html, _run_rows, run_tradeoff
from jaxrobust.commands._members import numbers_of_member, rows_of
from jaxrobust.commands._tradeoff import seconds_of
from jaxrobust.commands._tradeoff_runs import planned_runs
from jaxrobust.evaluation import Number, Row, row_of
from jaxrobust.evaluators import _eps_curve
from jaxrobust.experiment import (
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    override,
    to_dict,
    use,
)
from jaxrobust.locks import FolderInUseError, held
from jaxrobust.training import train, train_many
from jaxrobust.training._checkpoints import score_file

EPS = 0.1
base = Experiment(
    name="std",
    data=use("digits"),
    model=use("digits_cnn", width=4),
    objective=use("standard"),
    threat=use("linf", eps=EPS),
    learning_rate=use("cosine", peak=0.1),
    epochs=3,
    batch_size=128,
    validation=Validation(size=64, every=1, steps=2),
    evaluation=Evaluation(steps=2, batch_size=360, spatial_degrees=20.0, spatial_grid=(1, 1, 3)),
)
rob = replace(base, name="rob", objective=use("pgd_at", steps=2))
bad = replace(base, name="bad", batch_size=5000)
AUTOATTACK = use("autoattack", norm="linf", eps=EPS, images=40)
CURVE_OF_ALL = use("eps_curve", norm="linf", radii=(EPS,), steps=1)
CURVE = use("eps_curve", norm="linf", radii=(0.05, EPS), steps=2, images=100)


def quietly(tradeoff, folder):
    return run_tradeoff(tradeoff, folder, quiet=True, say=lambda line: None)


def rows(results, name):
    """The rows of a member's first seed by kind; the last of each kind."""
    member = results["members"][name]
    assert "failure" not in member, member["failure"]
    return {row.kind: row for row in rows_of(member)[0]}


def numbers(results, name):
    return numbers_of_member(results["members"][name])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A trade-off with everything in it, one of its members failing."""
    tradeoff = Tradeoff(
        name="everything",
        members=(base, bad, rob),
        evaluators=(
            AUTOATTACK,
            use("per_class", attack=AUTOATTACK),
            CURVE,
            use("certified", sigma=0.2, samples=200, selection=20, images=30, radii=(0.05,)),
        ),
    )
    folder = tmp_path_factory.mktemp("report")
    return tradeoff, folder, quietly(tradeoff, folder)


def test_every_figure_is_there_and_names_what_failed(report):
    _, folder, results = report
    names = {path.name for path in folder.glob("*.png")}
    assert names == {
        f"{name}.png"
        for name in ("tradeoff", "spatial", "eps_linf", "certified", "classes", "curves", "cost")
    }
    assert min(path.stat().st_size for path in folder.glob("*.png")) > 8000
    assert "batch_size must be at most" in results["members"]["bad"]["failure"]
    assert not numbers(results, "bad")
    text = (folder / "report.html").read_text()
    assert "failed: ValueError: batch_size must be at most" in text
    assert text.count("data:image/png;base64,") == len(names) + 2  # the examples of two members


def test_numbers_lead_to_the_rows_that_they_are_in(report):
    _, folder, results = report
    text = (folder / "report.html").read_text()
    ids = set(re.findall(r'id="([^"]+)"', text))
    links = re.findall(r'href="#([^"]+)"', text)
    assert len(links) > 30
    assert set(links) <= ids
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "http://" not in text
    assert "https://" not in text
    found = numbers(results, "rob")
    assert re.search(rf'href="#rows2-pgd--0">{100 * found["clean"].value:.1f} ±', text)
    assert [*found] == [
        "clean",
        "pgd (2)",
        "margin_pgd (2)",
        "worst PGD",
        "spatial grid (20 degrees, 0 px)",
        "random transform (20 degrees, 0 px)",
        "AutoAttack linf 0.1, 40 images",
        "worst class, clean",
        "worst class, robust",
        "certified l2 0.05 by smoothing, sigma 0.2, 30 images",
    ]
    assert found["clean"].total == 360, "not AutoAttack's 40"


class Page(HTMLParser):
    """The text of every element with an id, and the links of the first table."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.links, self.tables = [], {}, [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in self.VOID:
            self.open.append((tag, found.get("id")))
            self.texts.setdefault(found.get("id"), "")
            self.tables += tag == "table"
        if tag == "a":
            self.links.append([found["href"].removeprefix("#"), "", self.tables])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, name in self.open:
            self.texts[name] = self.texts.get(name, "") + data
        if self.open and self.open[-1][0] == "a":
            self.links[-1][1] += data


@pytest.mark.parametrize("seeds", [1, 2])
def test_every_link_of_the_table_leads_to_the_number(report, tmp_path, seeds):
    results = json.loads(json.dumps(report[2]))
    if seeds == 2:  # another seed, every share a little lower
        for member in results["members"].values():
            for run in list(member["runs"]):
                other = json.loads(json.dumps(run))
                for number in (n for row in other["rows"] for n in row["numbers"]):
                    number["value"] *= 0.9
                member["runs"].append(other)
    (tmp_path / "results.json").write_text(json.dumps(results))
    path = _html.write_report(tmp_path, results, figures=(), examples=())
    page = Page(path.read_text())
    assert page.open == []
    shown = [(place, text) for place, text, table in page.links if table == 1 and "±" in text]
    assert len(shown) == sum(len(numbers(report[2], name)) for name in ("std", "rob"))
    for place, text in shown:
        assert f"{text}" in page.texts[place], place
        assert place.count("--") == 1  # one line, not a whole section
    assert {place for place, _, _ in page.links} <= set(page.texts)


def test_the_best_of_a_column_are_bold_with_those_that_reach_it():
    def member(value, low, high):
        return {"runs": [{"rows": [Row("x", (Number("c", value, low, high),)).to_dict()]}]}

    members = {"a": member(0.9, 0.85, 0.95), "b": member(0.8, 0.7, 0.9), "c": member(0.5, 0.4, 0.6)}
    bold = re.findall(r'<td class="best"><a[^>]*>([\d.]+)', _html._table(members))
    assert bold == ["90.0", "80.0"]
    assert "Bold" not in _html._table({"a": members["a"]})


def test_the_report_fits_small_and_dark_screens_and_folds_its_rows(report):
    text = (report[1] / "report.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert "prefers-color-scheme: dark" in text
    assert "position: sticky" in text
    rows = text.partition('<h2 id="rows">')[2]
    assert rows.count("<details") > 20
    assert "<details open" not in rows
    assert "{" not in re.sub(r"<script>.*?</script>", "", rows, flags=re.S).replace("&#x27;", "")


def test_the_rows_agree_with_each_other(report):
    _, _, results = report
    for name in ("std", "rob"):
        row, training = rows(results, name), results["members"][name]["runs"][0]["training"]
        points = row["eps_curve"].detail["points"]
        assert [point["eps"] for point in points] == [0.0, 0.05, EPS]
        values = [point["value"] for point in points]
        assert values == sorted(values, reverse=True)
        assert {point["total"] for point in points} == {100}
        clean, attacked = row["autoattack"].numbers
        counts = row["per_class"].detail["counts"]
        assert sum(counts["images"]) == attacked.total == clean.total == 40
        assert sum(counts["robust"]) == attacked.correct
        assert sum(counts["clean"]) == clean.correct
        robust, clean, images = (np.array(counts[k]) for k in ("robust", "clean", "images"))
        assert ((robust <= clean) & (clean <= images)).all()
        certified = row["certified"].detail
        radii = np.array(certified["radii"])
        assert len(radii) == 30
        assert certified["smoothed_accuracy"]["correct"] >= (radii > 0).sum()
        assert row["certified"].numbers[0].correct == (radii > 0.05).sum()
        # 200 equal draws, ten classes and 0.999 allow no more than this.
        assert radii.max() <= 0.2 * 1.8
        assert len(training["epoch"]) == base.epochs
        assert training["seconds"] > 0


def test_nothing_is_done_twice(report, monkeypatch):
    tradeoff, folder, results = report

    def refuse(*_, **__):
        raise AssertionError("this was there already")

    monkeypatch.setattr(_run_rows, "load_run", refuse)
    monkeypatch.setattr(_run_rows.RunRows, "make", refuse)
    again = quietly(tradeoff, folder)
    assert again["members"] == results["members"]


def test_a_member_with_other_settings_than_its_copy_is_told(report, tmp_path):
    _, folder, _ = report
    shutil.copytree(folder, tmp_path / "report")
    config = tmp_path / "report/members/std/config.json"
    config.write_text(config.read_text().replace('"linf"', '"lynf"'))
    lines = []
    one = Tradeoff(name="one", members=(base,))
    with pytest.raises(ValueError, match=r"members.std holds a run with other settings"):
        run_tradeoff(one, tmp_path / "report", quiet=True, say=lines.append)
    assert any(f"{config} differs from its copy config.copy.json" in line for line in lines)


def test_a_damaged_best_checkpoint_is_replaced_by_another_and_told(report, tmp_path):
    _, folder, _ = report
    shutil.copytree(folder, tmp_path / "report")
    checkpoints = tmp_path / "report/members/std/checkpoints"
    first, *_, last = sorted(int(path.name) for path in checkpoints.iterdir())
    for step, score in ((first, 0.9), (last, 0.1)):
        path = checkpoints / str(step) / "_CHECKPOINT_METADATA"
        content = json.loads(path.read_bytes())
        content["custom_metadata"]["scores"] = {"validation_robust_accuracy": score}
        path.write_text(json.dumps(content))
        score_file(checkpoints, step).write_text(json.dumps({"validation_robust_accuracy": score}))
    one = Tradeoff(name="one", members=(replace(base, evaluators=(CURVE,)),))
    whole = rows(quietly(one, tmp_path / "report"), "std")
    assert {row.checkpoint["step"] for row in whole.values()} == {first}

    (checkpoints / str(first) / "default" / "manifest.ocdbt").write_bytes(b"")
    lines = []
    found = rows(run_tradeoff(one, tmp_path / "report", quiet=True, say=lines.append), "std")
    assert found.keys() == whole.keys()
    assert {row.checkpoint["step"] for row in found.values()} == {last}
    told = f"{checkpoints / str(first)} cannot be read (the list of its arrays is missing or"
    assert any(told in line for line in lines)
    kept = tmp_path / "report/members/std/rows.jsonl"
    before = kept.read_text()
    assert rows(quietly(one, tmp_path / "report"), "std") == found
    assert kept.read_text() == before  # nothing is evaluated again


def test_evaluators_may_change_after_training_and_training_may_not(report, tmp_path):
    """Nothing of an earlier report is lost to a folder of another training."""
    _, folder, results = report
    shutil.copytree(folder, tmp_path / "report")
    one = Tradeoff(name="one", members=(replace(base, evaluators=(CURVE,)),))
    with pytest.raises(ValueError, match=r"members.std holds a run with other settings .*epochs"):
        quietly(replace(one, members=(replace(base, epochs=2),)), tmp_path / "report")
    assert (
        json.loads((tmp_path / "report/results.json").read_text())["members"] == results["members"]
    )
    found = quietly(one, tmp_path / "report")
    assert rows(found, "std")["eps_curve"].detail["points"]
    stored = json.loads((tmp_path / "report/members/std/config.json").read_text())
    assert stored["evaluators"] == [to_dict(one.members[0])["evaluators"][0]]


def test_a_report_is_not_replaced_by_one_of_failures_alone(report, tmp_path):
    folder, said = tmp_path / "report", []
    folder.mkdir()
    earlier = (report[1] / "results.json").read_bytes()
    (folder / "results.json").write_bytes(earlier)
    failed = Tradeoff(name="failed", members=(bad,))
    found = run_tradeoff(failed, folder, quiet=True, say=said.append)
    assert "batch_size" in found["members"]["bad"]["failure"]
    assert (folder / "results.json").read_bytes() == earlier
    assert not (folder / "report.html").exists()
    assert said[-1].startswith("warning: every member failed, so there is no report; ")


def test_other_settings_are_evaluated_anew(report, monkeypatch):
    tradeoff, folder, results = report
    made, make = [], _run_rows.RunRows.make
    monkeypatch.setattr(
        _run_rows.RunRows, "make", lambda self, one: made.append(one) or make(self, one)
    )
    wider = use("eps_curve", **{**CURVE.kwargs, "radii": (0.05, EPS, 0.2)})
    others = tuple(spec for spec in tradeoff.evaluators if spec.target != "eps_curve")
    again = quietly(replace(tradeoff, evaluators=(*others, wider)), folder)
    assert [type(one) for one in made] == 2 * [_eps_curve.EpsCurve]
    old, new = (rows(r, "rob")["eps_curve"].detail["points"] for r in (results, again))
    assert new[:3] == old
    assert new[3]["eps"] == 0.2
    assert new[3]["value"] <= new[2]["value"]


def test_finished_runs_are_taken_as_they_are(report, tmp_path):
    _, folder, results = report
    taken = Tradeoff(
        name="taken",
        runs={"a": str(folder / "members" / "std"), "b": (str(folder / "members" / "rob"),)},
        evaluators=(use("per_class", attack=use("pgd", steps=2, grid=(1, 1, 3))),),
    )
    found = quietly(taken, tmp_path)
    assert not (tmp_path / "members").exists()
    for name, earlier in (("a", "std"), ("b", "rob")):
        one, other = numbers(found, name), numbers(results, earlier)
        shared = one.keys() & other.keys() - {"worst class, clean", "worst class, robust"}
        assert {"clean", "worst PGD"} <= shared
        assert all(one[column] == other[column] for column in shared)
        counts = rows(found, name)["per_class"].detail["counts"]
        assert sum(counts["robust"]) == one["worst PGD"].correct
        assert sum(counts["images"]) == 360


def test_a_run_that_cannot_be_taken_is_named(report, tmp_path):
    _, folder, _ = report
    with pytest.raises(ValueError, match=r"runs: a: .*nowhere holds no run"):
        quietly(Tradeoff(name="t", runs={"a": str(tmp_path / "nowhere")}), tmp_path)
    std = folder / "members" / "std"
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(std / "config.json", unfinished)
    first = (std / "metrics.jsonl").read_text().splitlines()[0]
    (unfinished / "metrics.jsonl").write_text(first + "\n")
    with pytest.raises(ValueError, match=r"unfinished is not finished, 1 of 3 epochs are done"):
        quietly(Tradeoff(name="t", runs={"a": str(unfinished)}), tmp_path)
    other = replace(base, name="other", threat=use("linf", eps=0.3))
    with pytest.raises(ValueError, match=r"runs: a: .*std has the threat linf\(eps=0.1\)"):
        quietly(Tradeoff(name="t", runs={"a": str(std)}, members=(other,)), tmp_path)


def test_a_member_may_be_made_of_others(report, tmp_path):
    _, folder, _ = report
    std = str(folder / "members" / "std")
    mixture = use("mixed_classifier", std="member:old", rob="member:rob", planes=(2, 2, 2))
    mixed = replace(base, name="mixed", model=mixture)
    tradeoff = Tradeoff(name="t", runs={"old": std}, members=(rob, mixed), seeds=(3, 4))
    runs = planned_runs(tradeoff, tmp_path)["mixed"]
    for run, seed in zip(runs, (3, 4), strict=True):
        assert run.experiment.seed == seed
        assert run.experiment.model.kwargs["std"] == std
        own = tmp_path / "members" / "rob" / f"seed{seed}"
        assert run.experiment.model.kwargs["rob"] == str(own)
    spoilt = use("mixed_classifier", std="member:old", rob="member:bad")
    spoilt = replace(base, name="spoilt", model=spoilt)
    results = quietly(Tradeoff(name="t", runs={"old": std}, members=(bad, spoilt)), tmp_path)
    assert "made of the member 'bad', which failed" in results["members"]["spoilt"]["failure"]


def changed_rows(path, change):
    """Writes a file of rows anew, each changed."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in found))


@pytest.fixture
def copied(report, tmp_path):
    """One finished member, copied, so that its rows may be spoilt."""
    folder = tmp_path / "std"
    shutil.copytree(report[1] / "members" / "std", folder)
    return folder


SPOILT = {
    "step": lambda row: {**row, "checkpoint": {"kind": "best", "step": 1}},
    "kind": lambda row: {**row, "checkpoint": {**row["checkpoint"], "kind": "last"}},
    "seed": lambda row: {**row, "seed": 7},
    "training seed": lambda row: {**row, "task": {**row["task"], "seed": 7}},
    "threat": lambda row: {**row, "task": {**row["task"], "threat": {"name": "l2"}}},
}


@pytest.mark.parametrize(
    "what",
    [
        "step",
        "threat",
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("kind", "seed", "training seed")),
    ],
)
def test_rows_of_another_step_seed_or_threat_are_not_taken(copied, tmp_path, what):
    """A run that was trained further is never told by the numbers of an earlier step."""
    tradeoff = Tradeoff(name="t", runs={"a": str(copied)}, evaluators=(CURVE,))
    first = rows(quietly(tradeoff, tmp_path / "t"), "a")

    def spoil(row):
        row = SPOILT[what](row)
        for number in [*row["numbers"], *row["detail"].get("points", [])]:
            number["value"] = 0.123
        return row

    changed_rows(copied / "rows.jsonl", spoil)
    again = rows(quietly(tradeoff, tmp_path / "t"), "a")
    for kind, row in first.items():
        assert again[kind].numbers == row.numbers
        assert again[kind].detail == row.detail
        assert again[kind].of() == row.of()


WHOLE = use("autoattack", norm="linf", eps=EPS, version="custom", attacks=("apgd-ce",), images=30)


def test_rows_of_other_test_data_or_weights_are_not_taken(tmp_path):
    """A file of data may get other labels under its name, a folder another training of as many steps."""
    rng = np.random.default_rng(0)
    arrays = {
        "train_images": rng.integers(0, 256, (64, 6, 6, 1), np.uint8),
        "train_labels": np.arange(64) % 4,
        "test_images": rng.integers(0, 256, (40, 6, 6, 1), np.uint8),
        "test_labels": np.arange(40) % 4,
    }
    np.savez(tmp_path / "data.npz", **arrays)
    one = Experiment(
        name="one",
        data=use("npz", path=str(tmp_path / "data.npz")),
        model=use("mlp", hidden=(4,)),
        objective=use("standard"),
        threat=use("linf", eps=EPS),
        learning_rate=use("constant", value=0.1),
        epochs=1,
        batch_size=32,
        validation=Validation(size=0),
        evaluation=Evaluation(steps=1, batch_size=40),
    )
    folder, evaluators = tmp_path / "run", (CURVE_OF_ALL, use("per_class", attack=WHOLE))
    train(one, folder, quiet=True)
    tradeoff = Tradeoff(name="t", runs={"a": str(folder)}, evaluators=evaluators)

    def found():
        return rows(quietly(tradeoff, tmp_path / "t"), "a")["eps_curve"]

    first = found()
    assert found() == first
    assert set(first.evaluated) == {"images", "labels", "checkpoint"}
    np.savez(tmp_path / "data.npz", **{**arrays, "test_labels": (np.arange(40) + 1) % 4})
    results = quietly(tradeoff, tmp_path / "t")
    assert "labels: other ones" in results["members"]["a"]["failure"]
    tradeoff = replace(tradeoff, evaluators=(CURVE_OF_ALL,))
    second = found()
    assert second.detail != first.detail
    np.savez(tmp_path / "data.npz", **arrays)
    assert found() == first
    for path in (folder / "checkpoints", folder / "metrics.jsonl"):
        path.rename(tmp_path / path.name)
    kept = (folder / "rows.jsonl").rename(tmp_path / "rows.jsonl")
    train(replace(one, learning_rate=use("constant", value=0.5)), folder, quiet=True)
    kept.rename(folder / "rows.jsonl")
    third = found()
    assert third.checkpoint == first.checkpoint
    assert third.evaluated["checkpoint"] != first.evaluated["checkpoint"]
    older = first.to_dict() | {"schema": 1}
    del older["evaluated"]
    assert row_of(older).numbers == first.numbers


@pytest.mark.slow
def test_curve_and_table_have_the_same_restarts_or_say_so(copied, tmp_path, monkeypatch):
    used = []
    attack = _eps_curve.PGD

    def noted(**settings):
        used.append(settings["restarts"])
        return attack(**settings)

    monkeypatch.setattr(_eps_curve, "PGD", noted)
    config = json.loads((copied / "config.json").read_text())
    config["evaluation"]["restarts"] = 2
    pgd = use("pgd", steps=2, restarts=2, grid=(1, 1, 3))
    asked = (use("eps_curve", **CURVE.kwargs, restarts=2), use("per_class", attack=pgd))
    (copied / "config.json").write_text(json.dumps(config))
    tradeoff = Tradeoff(name="t", runs={"a": str(copied)}, evaluators=asked)
    results = quietly(tradeoff, tmp_path / "t")
    row = rows(results, "a")
    assert set(used) == {2}
    assert row["eps_curve"].title.endswith("under margin PGD-2, 2 restarts")
    assert row["per_class"].detail["attack"] == "PGD-2, 2 restarts (CE and margin), linf eps 0.1"
    assert "margin_pgd (2, 2 restarts)" in numbers(results, "a")


def test_members_are_attacked_alike(tmp_path):
    for part, value in (
        ("evaluation", replace(base.evaluation, steps=3)),
        ("threat", use("linf", eps=0.2)),
    ):
        other = replace(rob, **{part: value})
        with pytest.raises(ValueError, match=f"must have the same {part}: rob has .* std has "):
            quietly(Tradeoff(name="t", members=(base, other)), tmp_path)
    larger = replace(rob, evaluation=replace(base.evaluation, batch_size=100))
    planned_runs(Tradeoff(name="t", members=(base, larger)), tmp_path)


def test_without_matplotlib_no_member_fails(report, tmp_path, monkeypatch):
    _, folder, results = report
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    runs = {name: str(folder / "members" / name) for name in ("std", "rob")}
    said = []
    tradeoff = Tradeoff(name="t", runs=runs)
    found = run_tradeoff(tradeoff, tmp_path / "t", quiet=True, say=said.append)
    assert not any("failure" in member for member in found["members"].values())
    (warning,) = [line for line in said if line.startswith("warning: ")]
    assert "figures need matplotlib" in warning
    table = next(number for number, line in enumerate(said) if "worst PGD" in line)
    assert table < said.index(warning), "numbers first"
    assert (tmp_path / "t" / "results.json").exists()
    assert "report.html" in said[-1]
    for name in runs:
        assert numbers(found, name)["clean"] == numbers(results, name)["clean"]


def attacked_by(**settings):
    return {"evaluators": (use("autoattack", **{"norm": "linf", "eps": EPS, **settings}),)}


WRONG = {
    "norm": (attacked_by(norm="l3"), r"evaluators\[0\].norm: .*'linf', 'l2' or 'l1', got 'l3'"),
    "units": (attacked_by(eps=8.0), r"image units \(8/255, not 8\), got 8.0"),
    "text": (attacked_by(eps="wide"), r"evaluators\[0\].eps: .*got 'wide'"),
    "images": (attacked_by(images=0), "images must be an integer of at least 1"),
    "within": (
        {"evaluators": (use("per_class", attack=use("pgd", step=3)),)},
        r"evaluators\[0\].attack.step is not an argument of pgd",
    ),
    "later": (
        {"members": (replace(base, model=use("mixed_classifier", std="member:x", rob="y")),)},
        "std is made of the member 'x', which does not come before it; before it come none",
    ),
    "twice": ({"runs": {"std": "folder"}}, "must have different names"),
    "no folder": ({"runs": {"old": ()}}, "runs: old names no folder"),
    "nothing": ({"members": ()}, "at least one"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused(name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        Tradeoff(**{"name": "t", "members": (base,), **changes})


def test_an_evaluator_in_another_one_comes_back_from_a_file():
    from jaxrobust.experiment import from_dict

    curve = {"name": "eps_curve", "kwargs": {"norm": "linf", "radii": ["4/255", "8/255"]}}
    inner = {"use": "autoattack", "kwargs": {"norm": "linf", "eps": "8/255"}}
    outer = {"use": "per_class", "kwargs": {"attack": inner}}
    values = {"name": "t", "members": [to_dict(base)], "evaluators": [outer, curve]}
    tradeoff = from_dict(values, Tradeoff)
    per_class, _ = tradeoff.build_evaluators()
    assert per_class.attack.eps == 8 / 255
    assert from_dict(to_dict(tradeoff), Tradeoff) == tradeoff


def test_members_and_the_tradeoff_itself_can_be_overridden():
    mixed = replace(base, name="m", model=use("mixed_classifier", std="member:std", rob="x"))
    tradeoff = Tradeoff(name="t", members=(base, mixed), evaluators=(CURVE,))
    words = ["tradeoff.seeds=[3, 4]", "epochs=7", 'tradeoff.evaluators=[{"name": "certified"}]']
    changed = override(tradeoff, words)
    assert changed.seeds == (3, 4)
    assert changed.evaluators == (use("certified"),)
    assert [member.epochs for member in changed.members] == [7, 7]
    assert replace(changed.members[1], epochs=base.epochs) == mixed
    with pytest.raises(ValueError, match=r"'seed' is unknown; choose from name, members, seeds"):
        override(tradeoff, ["tradeoff.seed=3"])
    with pytest.raises(ValueError, match="seeds of t must be different"):
        override(tradeoff, ["tradeoff.seeds=[3, 3]"])


def test_seconds_come_from_the_rates():
    rows = [
        {"step": 10, "examples_per_second": 100.0, "members": 2},
        {"step": 20, "examples_per_second": 400.0, "members": 2},
    ]
    assert seconds_of(rows, 40) == [400 / 100 / 2, 400 / 400 / 2]


quick = replace(
    base,
    name="a",
    model=use("mlp", hidden=(4,)),
    epochs=1,
    batch_size=512,
    validation=Validation(size=0),
    evaluation=Evaluation(steps=1, batch_size=360),
)


def test_a_member_without_a_first_step_is_trained_anew(tmp_path):
    """An attempt that failed leaves a configuration, and nothing to continue."""
    for name in ("a", "b"):
        folder = tmp_path / "members" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(to_dict(replace(quick, epochs=9))))
    said = []
    tradeoff = Tradeoff(name="t", members=(quick, replace(quick, name="b", seed=1)))
    results = run_tradeoff(tradeoff, tmp_path, quiet=True, say=said.append)
    assert not any("failure" in member for member in results["members"].values())
    assert said[0] == "2 runs in one program: a (seed 0), b (seed 1)"


def test_a_group_that_was_stopped_goes_on_as_one_program(tmp_path):
    config = replace(quick, epochs=3)
    members = tuple(replace(config, name=name) for name in "abc")
    folders = [tmp_path / "members" / member.name for member in members]
    options = {"quiet": True, "say": lambda line: None}
    train_many(members[:2], folders[:2], stop_at=3, **options)  # within the second epoch
    train(members[2], folders[2], **options)
    said = []
    results = run_tradeoff(
        Tradeoff(name="t", members=members), tmp_path, quiet=True, say=said.append
    )
    assert said[:2] == ["2 runs in one program: a (seed 0), b (seed 0)", "resuming 2 x a at step 3"]
    assert not any("failure" in member for member in results["members"].values())
    assert not any("resuming a at" in line for line in said)  # finished by this very call


@pytest.mark.parametrize("count", [1, 2])
def test_a_member_that_somebody_else_trains_has_not_failed(tmp_path, count):
    members = tuple(replace(quick, name=name) for name in "ab"[:count])
    said = []
    with held(tmp_path / "members" / "a", work="training"), pytest.raises(FolderInUseError):
        run_tradeoff(Tradeoff(name="t", members=members), tmp_path, say=said.append)
    assert not any("failed" in line or "not in one" in line for line in said)


def test_a_run_is_taken_from_the_home_directory_and_told_of_its_damage(
    copied, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(copied / "config.json", copied / "config.copy.json")
    (copied / "config.json").write_text("{")
    said = []
    runs = planned_runs(Tradeoff(name="t", runs={"a": "~/std"}), tmp_path, say=said.append)
    assert runs["a"][0].folder == copied
    assert len(said) == 1
    assert "config.json is damaged" in said[0]


def test_the_report_tells_of_failed_checks_and_reads_rows_without_any():
    failed = {"checks": [{"name": "finite logits", "message": "NaN < 3"}]}
    spoilt = [Row("PGD", (), failed, kind="pgd"), Row("mine", (), failed, kind="my.own:noise")]
    runs = [{"rows": [row.to_dict() for row in found]} for found in ([Row("x", ())], spoilt)]
    text = "".join(_html._warnings({"a": {"runs": []}, "b": {"runs": runs}}))
    for kind, what in (("pgd", "PGD"), ("my-own-noise", "mine")):
        assert f'<a href="#rows1-{kind}">b</a>, {what}: NaN &lt; 3' in text
    assert _html._warnings({"a": {"runs": runs[:1]}}) == []


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, BROWSERS)), None)
COUNT = """<script>addEventListener("load", () => {
  const all = [...document.images], broken = all.filter(i => !i.complete || !i.naturalWidth);
  document.title = `images ${all.length} broken ${broken.length}`;
})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")
def test_a_browser_shows_it_without_a_missing_figure_or_a_console_error(report, tmp_path):
    _, folder, _ = report
    text = (folder / "report.html").read_text()
    page = tmp_path / "page.html"
    page.write_text(text.replace("</body>", COUNT + "</body>"))
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert f"<title>images {text.count('<img ')} broken 0</title>" in done.stdout, done.stderr
    assert "CONSOLE" not in done.stderr
