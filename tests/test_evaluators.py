"""Evaluators and rows: one file adds an evaluator with its figure, and rows are read back as written."""

import importlib
import pathlib
import re
from dataclasses import make_dataclass, replace

import numpy as np
import pytest

from jaxrobust import evaluators
from jaxrobust.commands import _keeper, _run_rows, evaluate_run, markdown_table, run_tradeoff
from jaxrobust.commands._members import numbers_of_member
from jaxrobust.evaluation import Number, Row, Work, numbers_of, row_of, settings_of, summary
from jaxrobust.evaluators import _pgd
from jaxrobust.experiment import (
    PARTS,
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    evaluator_packages,
    override,
    use,
)
from jaxrobust.inputs import InputError
from jaxrobust.training import load_run, train

BASE = Experiment(
    name="base",
    data=use("digits"),
    model=use("mlp", hidden=(16,)),
    objective=use("standard"),
    threat=use("linf", eps=0.1),
    learning_rate=use("constant", value=0.1),
    epochs=1,
    batch_size=512,
    validation=Validation(size=0),
    evaluation=Evaluation(steps=1, batch_size=360),
)
NOISE = re.findall(
    r"```python\n(.*?)```", pathlib.Path(__file__).parents[1].joinpath("CONTRIBUTING.md").read_text(), re.S
)[2]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "r"
    train(BASE, folder, quiet=True)
    return folder


@pytest.fixture
def noise(monkeypatch):
    """The evaluator of CONTRIBUTING, among the library's own."""
    made = {"__name__": "noise"}
    exec(NOISE, made)
    monkeypatch.setitem(PARTS["evaluators"].names, "noise", made["Noise"])
    return made["Noise"]


def test_one_file_adds_an_evaluator_with_its_figure(noise, trained, tmp_path):
    asked = (use("noise", sigma=0.25),)
    assert override(BASE, ['evaluators=[{"name": "noise"}]']).evaluators == (use("noise"),)
    tradeoff = Tradeoff(
        name="t",
        runs={"a": str(trained)},
        evaluators=asked,
        planes=(("clean", "noise 0.25"),),
    )
    results = run_tradeoff(tradeoff, tmp_path, quiet=True, say=lambda line: None)
    found = numbers_of_member(results["members"]["a"])
    assert 0 < found["noise 0.25"].value <= 1
    assert "| noise 0.25 |" in markdown_table(tmp_path / "results.json")
    assert (tmp_path / "noise.png").stat().st_size > 5000
    assert (tmp_path / "tradeoff.png").stat().st_size > 5000
    report = (tmp_path / "report.html").read_text()
    assert 'href="#rows0-noise"' in report
    assert report.count("data:image/png;base64,") >= 4
    with pytest.raises(ValueError, match=r"evaluators\[0\].sigm is not an argument of noise"):
        replace(tradeoff, evaluators=(use("noise", sigm=1.0),))


def test_noise_of_an_evaluator_does_not_depend_on_the_batch(noise, trained):
    import jax

    run = load_run(trained)
    ones = [
        noise(sigma=0.3)(run.logits_fn, run.dataset, key=jax.random.key(3), work=Work(batch_size=b))
        for b in (360, 97)
    ]
    assert ones[0] == ones[1]


def test_an_evaluator_that_returns_no_row_is_named(trained):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Wrong:
        def __call__(self, logits_fn, dataset, *, key, work):
            return 0.5

    with pytest.raises(InputError, match=r"Wrong must return a Row, got 0.5"):
        evaluate_run(trained, evaluators=[Wrong()], quiet=True, say=lambda line: None)


def test_a_row_names_the_source_of_an_evaluator_from_outside(trained, tmp_path, monkeypatch):
    """Also on a run of the library's parts, and where it stands in another one's argument."""
    (tmp_path / "my_noise.py").write_text(NOISE)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("my_noise").Noise()
    asked, quiet = [own, evaluators.pgd(steps=1)], {"quiet": True, "say": lambda line: None}
    first, second = evaluate_run(trained, evaluators=asked, **quiet)
    assert first.kind == "my_noise:Noise"
    assert [*first.provenance["sources"]] == ["my_noise"]
    assert first.provenance["sources"]["my_noise"].startswith("sha256 ")
    assert "sources" not in second.provenance
    assert evaluator_packages(evaluators.per_class(attack=own)) == {"my_noise"}


def test_a_row_that_another_evaluator_needs_is_made_once(trained, monkeypatch):
    """Also in somebody else's folder, where it cannot be kept, and with one bar."""
    monkeypatch.setattr(_keeper, "unwritable", lambda folder: "read-only")
    made, call, bars = [], _pgd.Pgd.__call__, []
    bar = _run_rows.EvaluationBar
    monkeypatch.setattr(_pgd.Pgd, "__call__", lambda *a, **k: made.append(0) or call(*a, **k))
    monkeypatch.setattr(_run_rows, "EvaluationBar", lambda *a, **k: bars.append(0) or bar(*a, **k))
    attack = evaluators.pgd(steps=1, images=50)
    asked = [evaluators.per_class(attack=attack), attack, evaluators.per_class(attack=attack)]
    found = evaluate_run(trained, evaluators=asked, quiet=True, say=lambda line: None)
    assert len(made) == 2, "for the first, and as asked for"
    assert len(bars) == 3
    assert found[0].numbers == found[2].numbers
    worst = found[0].detail["counts"]
    assert sum(worst["robust"]) == found[1].numbers[-1].correct


def test_rows_are_read_as_they_were_written():
    row = Row("t", (Number("clean", 0.5, 0.25, 0.75, 1, 2),), {"a": [1, float("inf")]}, seed=3)
    again = row_of(row.to_dict())
    assert again.numbers == row.numbers
    assert again == row_of(again.to_dict())
    for values, message in (
        (row.to_dict() | {"schema": 99}, "schema must be at most 2, got 99"),
        (row.to_dict() | {"more": 1}, "more is no part of a row"),
        ({"title": "t"}, "numbers is no part of a row"),
        (3, "no part of a row"),
    ):
        with pytest.raises(InputError, match=message):
            row_of(values)


def test_a_column_that_was_measured_twice_is_told_over_most_points():
    few, many = (Row("", (Number("clean", v, v, v, 1, n),)) for v, n in ((0.1, 40), (0.2, 360)))
    for rows in ([few, many], [many, few]):
        assert numbers_of(rows)["clean"].value == 0.2
    seeds = [
        [Row("", (Number("clean", v, 0, 1, 1, 2), Number(str(v), v, 0, 1)))] for v in (0.2, 0.4)
    ]
    ((column, mean),) = summary(seeds).items()
    assert (column, mean.low, mean.high) == ("clean", 0.2, 0.4)
    np.testing.assert_allclose(mean.value, 0.3)


CUSTOM = {"version": "custom", "attacks": ("apgd-ce",), "images": 24}


def test_an_audit_takes_up_autoattack_and_keeps_its_report(trained, monkeypatch):
    attack = evaluators.autoattack(norm="linf", eps=0.05, **CUSTOM)
    asked = [attack, evaluators.audit(attack=attack, steps=4, queries=4, rounds=1)]
    said = []
    first, row = evaluate_run(trained, evaluators=asked, quiet=True, say=said.append)
    assert row.kind == "audit"
    names = [number.column for number in row.numbers]
    figure = "AutoAttack custom (apgd-ce) linf 0.05, 24 images"
    assert names == ["clean", figure, f"audited {figure}, steps 4, queries 4, rounds 1"]
    assert row.number(figure) == first.number(figure)
    assert row.numbers[2].correct <= row.numbers[1].correct
    assert row.numbers[1].correct - row.numbers[2].correct == sum(row.detail["fell"].values())
    assert row.detail["verdict"] in "\n".join(said)
    assert sum(row.detail["classes"]["robust"]) == row.numbers[2].correct
    (folder,) = (trained / "audit").iterdir()
    assert folder.name.endswith("_custom_apgd-ce_seed0_first24_steps4_queries4_rounds1")
    assert row.detail["verdict"] in (folder / "report.txt").read_text()
    stated = use("audit", attack=use("autoattack", norm="l2", eps="1/2"), rounds=2)
    (built,) = replace(BASE, evaluators=(stated,)).build("evaluators")
    assert (built.attack.eps, built.rounds) == (0.5, 2)


def test_a_union_is_the_points_that_withstand_every_norm(trained):
    asked = evaluators.union(linf=0.05, l2=0.3, l1=2, **CUSTOM)
    alone = [
        evaluators.autoattack(norm=norm, eps=eps, **CUSTOM)
        for norm, eps in (("linf", 0.05), ("l2", 0.3), ("l1", 2))
    ]
    quiet = {"quiet": True, "say": lambda line: None}
    row, *rows = evaluate_run(trained, evaluators=[asked, *alone], **quiet)
    clean, *each, union = row.numbers
    assert [number.column for number in each] == [one.numbers[1].column for one in rows]
    assert each == [one.numbers[1] for one in rows]
    assert union.column == "union of AutoAttack " + " and ".join(
        f"custom (apgd-ce) {words}, 24 images" for words in ("linf 0.05", "l2 0.3", "l1 2")
    )
    assert union.total == 24
    least = sum(number.correct - 24 for number in each) + 24
    assert max(0, least) <= union.correct <= min(number.correct for number in each) <= clean.correct
    assert sum(row.detail["classes"]["robust"]) == union.correct
    assert row.detail["threat"] == "linf eps 0.05 or l2 eps 0.3 or l1 eps 2"


def test_a_bracket_holds_the_accuracy_between_bounds_and_attacks(trained, tmp_path):
    pytest.importorskip("matplotlib")
    asked = evaluators.bracket(norm="linf", radii=(0.01, 0.05), images=40, steps=5)
    (row,) = evaluate_run(trained, evaluators=[asked], quiet=True, say=lambda line: None)
    small, large = row.detail["points"]
    for point in (small, large):
        assert point["certified"]["correct"] <= point["attacked"]["correct"]
        gap = point["attacked"]["correct"] - point["certified"]["correct"]
        assert point["open"] == gap
    assert large["certified"]["correct"] <= small["certified"]["correct"]
    assert large["attacked"]["correct"] <= small["attacked"]["correct"]
    assert [n.correct for n in row.numbers[:2]] == [
        small["certified"]["correct"],
        small["attacked"]["correct"],
    ]
    rows = {"base": [row]}
    (path,) = asked.draw(tmp_path, rows, "digits")
    assert path.stat().st_size > 1000
    assert "40 test images" in asked.caption(rows)
    assert row_of(row.to_dict()).numbers == row.numbers


def test_a_verdict_is_kept_and_taken_up(trained):
    asked = evaluators.verdict(norm="linf", eps=0.05, images=24)
    said, quiet = [], {"quiet": True}
    (row,) = evaluate_run(trained, evaluators=[asked], say=said.append, **quiet)
    assert [n.column for n in row.numbers] == ["clean", "fast verdict linf 0.05, 24 images"]
    assert row.numbers[1].correct <= row.numbers[0].correct
    assert sum(row.detail["classes"]["robust"]) == row.numbers[1].correct
    assert list(row.cost["stages"]) == ["cr", "pma", "apgd-malt", "square"]
    assert "robust accuracy at most" in "\n".join(said)
    (folder,) = (trained / "verdict").iterdir()
    assert {path.name for path in folder.iterdir()} >= {"verdict.json", "items", "adversarial.npz"}
    again = evaluate_run(trained, evaluators=[asked], say=lambda line: None, **quiet)[0]
    assert again.cost["stages"] == row.cost["stages"], "the seconds of the first run"
    (built,) = replace(BASE, evaluators=(use("verdict", norm="l2", eps="1/2"),)).build("evaluators")
    assert built == evaluators.verdict(norm="l2", eps=0.5)


def test_a_bracket_is_kept_by_radius_and_taken_up(trained, monkeypatch):
    options = {"norm": "linf", "images": 16, "steps": 2, "cheap": ("ibp",), "costly": ()}
    quiet = {"quiet": True, "say": lambda line: None}
    first = evaluators.bracket(**options, radii=(0.01, 0.05))
    earlier = set((trained / "bracket").glob("*"))  # of other tests
    (row,) = evaluate_run(trained, evaluators=[first], **quiet)
    (folder,) = set((trained / "bracket").iterdir()) - earlier
    assert {path.name for path in folder.iterdir()} == {"eps0.01_seed0", "eps0.05_seed0"}
    monkeypatch.setattr("jaxrobust.evaluation._bracket.over_examples", pytest.fail)
    (again,) = evaluate_run(trained, evaluators=[first], **quiet)
    assert again.numbers == row.numbers
    assert again.detail == row.detail
    fewer = evaluators.bracket(**options, radii=(0.05,))
    (one,) = evaluate_run(trained, evaluators=[fewer], **quiet)
    assert one.detail["points"][0]["decided_by"] == row.detail["points"][1]["decided_by"]


def test_distances_have_every_radius_in_one_row_and_figure(trained, tmp_path):
    pytest.importorskip("matplotlib")
    options = {"norm": "l2", "attacks": ("ddn", "superdeepfool"), "images": 24}
    asked = evaluators.distances(**options, settings={"steps": 20}, radii=(0.1, 0.3))
    quiet = {"quiet": True, "say": lambda line: None}
    (row,) = evaluate_run(trained, evaluators=[asked], **quiet)
    clean, near, far = row.numbers
    assert near.column == "ddn, superdeepfool, steps 20: l2 0.1, 24 images"
    smallest = np.array(row.detail["smallest"])
    assert len(smallest) == clean.total == 24
    assert (smallest == 0).sum() == 24 - clean.correct
    for number, eps in ((near, 0.1), (far, 0.3)):
        assert number.correct == (smallest > eps).sum()
    assert row.detail["attacks"]["ddn"]["forwards_per_point"] == 20
    assert row_of(row.to_dict()).detail == row.detail
    more = evaluators.distances(**options, settings={"steps": 20}, radii=(0.2,))
    assert (
        evaluate_run(trained, evaluators=[more], **quiet)[0].cost["attacks"]
        == (row.cost["attacks"])
    ), "taken up: radii change nothing of it"
    (path,) = asked.draw(tmp_path, {"base": [row], "two": [row, row]}, "digits")
    assert (path.name, path.stat().st_size > 5000) == ("distances_l2.png", True)
    assert "24 test images" in asked.caption({"base": [row]})
    stated = use("distances", norm="linf", settings={"steps": 5}, radii=["8/255"])
    (built,) = replace(BASE, evaluators=(stated,)).build("evaluators")
    assert built == evaluators.distances(norm="linf", settings={"steps": 5}, radii=(8 / 255,))


def test_smoothing_takes_its_place_beside_the_bounds(trained, tmp_path):
    pytest.importorskip("matplotlib")
    drawn = evaluators.certified(sigma=0.2, samples=200, selection=20)
    options = {"norm": "l2", "radii": (0.05, 0.1), "images": 20, "steps": 2, "costly": ()}
    asked = evaluators.bracket(**options, smoothing=drawn)
    alone = evaluators.certified(sigma=0.2, samples=200, selection=20, radii=(0.05, 0.1), images=20)
    quiet = {"quiet": True, "say": lambda line: None}
    row, own = evaluate_run(trained, evaluators=[asked, alone], **quiet)
    columns = [number.column for number in row.numbers]
    assert columns[0] == "certified l2 0.05 by ibp, crown-ibp, 20 images"
    assert columns[-1] == "certified l2 0.1 by smoothing, sigma 0.2, 20 images"
    assert row.numbers[-2:] == own.numbers
    (path,) = asked.draw(tmp_path, {"base": [row]}, "digits")
    assert path.stat().st_size > 1000
    assert "sigma 0.2, for the smoothed classifier" in asked.caption({"base": [row]})
    stated = use("bracket", norm="l2", radii=(0.1,), smoothing=use("certified", sigma=0.5))
    (built,) = replace(BASE, evaluators=(stated,)).build("evaluators")
    assert built.smoothing.sigma == 0.5


WRONG = {
    "precision": (
        lambda: evaluators.verdict(norm="l2", eps=1, precision="float64"),
        "precision must be",
    ),
    "verdict's units": (lambda: evaluators.verdict(norm="linf", eps=8), "image units"),
    "attack of another norm": (
        lambda: evaluators.distances(norm="l1", attacks=("ddn",)),
        "ddn takes l2",
    ),
    "setting of no attack": (
        lambda: evaluators.distances(norm="l1", settings={"radius": 3}),
        "radius must be settings of pdpgd, fmn",
    ),
    "radius of l0": (
        lambda: evaluators.distances(norm="l0", radii=(-1,)),
        "radii must be at least",
    ),
    "smoothing": (
        lambda: evaluators.bracket(norm="linf", radii=(0.1,), smoothing=evaluators.certified()),
        "norm must be l2, got 'linf'",
    ),
    "what smooths": (
        lambda: evaluators.bracket(norm="l2", radii=(0.1,), smoothing=0.25),
        "smoothing must be the evaluator certified, got 0.25",
    ),
    "radii of its own": (
        lambda: evaluators.bracket(
            norm="l2", radii=(0.1,), smoothing=evaluators.certified(radii=(0.2,))
        ),
        "no radii and images of its own",
    ),
    "audit": (lambda: evaluators.audit(attack=evaluators.pgd()), "attack must be the evaluator"),
    "rounds": (
        lambda: evaluators.audit(attack=evaluators.autoattack(norm="l2", eps=1), rounds=0),
        "rounds must be an integer of at least 1",
    ),
    "one norm": (lambda: evaluators.union(l2=0.5), "at least two norms of .* got l2"),
    "union's units": (lambda: evaluators.union(linf=8, l2=1), "image units"),
    "methods": (
        lambda: evaluators.bracket(norm="l2", radii=(0.1,), costly=("exact",)),
        "costly must be",
    ),
    "bracket": (lambda: evaluators.bracket(norm="l2", radii=(0.2, 0.1)), "radii must be above 0"),
    "norm": (lambda: evaluators.autoattack(norm="l3", eps=0.1), "norm must be"),
    "units": (lambda: evaluators.autoattack(norm="linf", eps=8), r"image units \(8/255, not 8\)"),
    "version": (lambda: evaluators.autoattack(norm="l2", eps=1, version="x"), "version must be"),
    "list": (lambda: evaluators.autoattack(norm="l2", eps=1, attacks=("fab",)), "attacks must be"),
    "images": (lambda: evaluators.pgd(images=0), "images must be an integer of at least 1"),
    "steps": (lambda: evaluators.pgd(steps=0), "steps must be an integer of at least 1"),
    "grid": (
        lambda: evaluators.spatial_grid(max_degrees=1, counts=(1, 2)),
        "counts must be three numbers",
    ),
    "degrees": (lambda: evaluators.spatial_grid(max_degrees=-1), "max_degrees must be"),
    "no transform": (lambda: evaluators.spatial_grid(), "must be above 0, got 0 for both"),
    "one column": (
        lambda: evaluators.distances(norm="l2", radii=(0.1, 0.1)),
        "radii must differ in their first six digits",
    ),
    "one column certified": (
        lambda: evaluators.certified(radii=(0.25, 0.25)),
        "radii must differ in their first six digits",
    ),
    "radii": (lambda: evaluators.eps_curve(norm="l2", radii=(0.2, 0.1)), "radii must be above 0"),
    "none": (lambda: evaluators.eps_curve(norm="l2", radii=()), "at least one radius"),
    "sigma": (lambda: evaluators.certified(sigma=0), "sigma must be above 0"),
    "lambda": (lambda: settings_of(lambda: 0), "must be a frozen dataclass"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused(name):
    make, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        make()


def test_threats_of_one_name_from_two_modules_are_two_settings():
    """Rows are kept by settings: one threat's numbers must not be taken for the other's."""
    kinds = [make_dataclass("Box", [("eps", float)], frozen=True) for _ in range(2)]
    kinds[0].__module__, kinds[1].__module__ = "first", "second"
    one, other = (settings_of(evaluators.pgd(threat=kind(0.1)))["threat"] for kind in kinds)
    assert one == {"is": "first:Box", "eps": 0.1}
    assert one != other
