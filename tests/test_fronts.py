"""Sweeps: their points, one program for all of them, lines in the report."""

import json
from dataclasses import replace

import chex
import jax
import numpy as np
import pytest

from jaxrobust import models
from jaxrobust.commands import fronts_markdown, run_tradeoff
from jaxrobust.commands._fronts import (
    Plane,
    Settings,
    fronts_table,
    measured_lines,
    round_values,
)
from jaxrobust.commands._members import numbers_on
from jaxrobust.evaluation import Line, Number, Row, draw_fronts, packed_right
from jaxrobust.experiment import (
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    from_dict,
    override,
    sweep_points,
    to_dict,
    use,
)
from jaxrobust.training import _program, alike, train, train_many

EPS = 0.1
BASE = Experiment(
    name="PGD-AT",
    data=use("digits"),
    model=use("mlp", hidden=(16,)),
    objective=use("pgd_at", steps=1),
    threat=use("l2", eps=EPS),
    learning_rate=use("constant", value=0.05),
    epochs=1,
    batch_size=256,
    validation=Validation(size=0),
    evaluation=Evaluation(steps=2, batch_size=360),
)
TRADES = replace(BASE, name="TRADES", objective=use("trades", steps=1))
RAMP = {"threat.eps": use("linear", start=0.0, end=EPS, to_epoch=1)}
STAGES = {"objective.beta": use("stages", values=[(0, 0.0), (1, 6.0)])}


def points(experiment, **sweep):
    swept = replace(experiment, sweep=sweep)
    return [point.experiment for point in sweep_points(swept)]


def test_a_sweep_changes_one_number_of_each_point():
    betas = sweep_points(replace(TRADES, sweep={"objective.beta": (1, 6)}))
    assert [p.experiment.objective.kwargs["beta"] for p in betas] == [1, 6]
    assert [(p.line, p.knob, p.value) for p in betas] == [
        ("TRADES", "beta", 1),
        ("TRADES", "beta", 6),
    ]
    assert [p.experiment.name for p in betas] == ["TRADES beta 1", "TRADES beta 6"]
    assert not any(p.experiment.sweep for p in betas)
    (alone,) = sweep_points(TRADES)
    assert alone == (TRADES, "TRADES", "", None)


def test_a_swept_radius_is_that_of_training():
    """All points are evaluated under the experiment's own threat."""
    for point, eps in zip(points(BASE, **{"threat.eps": (0.1, 0.3)}), (0.1, 0.3), strict=True):
        assert point.threat.kwargs["eps"] == EPS
        assert point.schedules["threat.eps"] == use("constant", value=eps)


def test_arguments_of_schedules_are_swept():
    ramped = replace(BASE, schedules=RAMP)
    found = points(ramped, **{"schedules.threat.eps.end": (0.1, 0.3)})
    assert [p.schedules["threat.eps"].kwargs["end"] for p in found] == [0.1, 0.3]
    assert [p.name for p in found] == ["PGD-AT eps 0.1", "PGD-AT eps 0.3"]
    staged = replace(TRADES, schedules=STAGES)
    found = points(staged, **{"schedules.objective.beta.values.1.1": (1, 3)})
    assert [p.schedules["objective.beta"].kwargs["values"] for p in found] == [
        [(0, 0.0), (1, 1)],
        [(0, 0.0), (1, 3)],
    ]


@pytest.mark.parametrize(
    ("experiment", "sweep", "message"),
    [
        (TRADES, {"objective.steps": (1, 2)}, "'objective.steps' is no number .* objective.beta"),
        (TRADES, {"objective.beta": (1,)}, "at least two values, got"),
        (TRADES, {"objective.beta": (1, 1.0000001)}, "differ in six digits"),
        (TRADES, {"objective.beta": (1, -2)}, "beta must be at least 0"),
        (TRADES, {"awp": (0.1, 0.2)}, "'awp' is no number"),
        (TRADES, {"model.width": (4, 8)}, "sweep it with epochs=0, got epochs=1"),
        (TRADES, {"objective.beta": (1, 2), "threat.eps": (1, 2)}, "must have one path"),
        (
            replace(BASE, schedules=RAMP),
            {"threat.eps": (1, 2)},
            "sweep an argument of the schedule",
        ),
        (BASE, {"schedules.threat.eps.end": (1, 2)}, "it has none"),
        (
            replace(TRADES, schedules=STAGES),
            {"schedules.objective.beta.values.5.1": (1, 2)},
            "leads to no place of a list",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused(experiment, sweep, message):
    with pytest.raises(ValueError, match=message):
        replace(experiment, sweep=sweep)


def test_sweeps_are_stored_set_and_not_trained_alone(tmp_path):
    swept = override(TRADES, ["sweep.objective.beta=[1, 2]"])
    assert swept.sweep == {"objective.beta": (1, 2)}
    assert from_dict(json.loads(json.dumps(to_dict(swept)))) == swept
    tradeoff = Tradeoff(
        name="t", members=(swept,), front_evaluators=(use("pgd", steps=3),), reference=(0.5, 0.1),
        compared=(("TRADES", "TRADES"),),
    )  # fmt: skip
    assert from_dict(json.loads(json.dumps(to_dict(tradeoff))), Tradeoff) == tradeoff
    with pytest.raises(ValueError, match="stands for several runs, which a trade-off"):
        train(swept, tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"'x' must be a member with a sweep"):
        Tradeoff(name="t", members=(swept,), compared=(("TRADES", "x"),))
    with pytest.raises(ValueError, match="must have different names"):
        Tradeoff(name="t", members=(swept, replace(TRADES, name="TRADES beta 1")))


def test_schedules_of_one_program_are_tables(tmp_path, monkeypatch):
    """Each run has its own ramp, without a second program, and ends where it ends alone."""
    made = []
    program = _program.Together.program

    def counted(*args, **options):
        made.append(program(*args, **options))
        return made[-1]

    monkeypatch.setattr(_program.Together, "program", counted)
    ramps = points(replace(BASE, schedules=RAMP), **{"schedules.threat.eps.end": (0.1, 2.0)})
    assert alike(*ramps)
    assert not alike(ramps[0], BASE)
    other = {"optimizer.momentum": use("constant", value=0.5)}
    changed = replace(ramps[0], schedules={**RAMP, **other})
    assert not alike(
        changed, replace(changed, schedules={**RAMP, "optimizer.momentum": RAMP["threat.eps"]})
    )
    together = train_many(ramps, [tmp_path / "1", tmp_path / "2"], quiet=True)
    assert len(made) == 1
    assert made[0]._cache_size() <= 1
    alone = train(ramps[1], tmp_path / "alone", devices=jax.devices()[:1], quiet=True)
    chex.assert_trees_all_close(
        together[1].state.params, jax.device_get(alone.state.params), rtol=0, atol=2e-4
    )
    first, second = (jax.tree.leaves(run.state.params)[0] for run in together)
    assert np.abs(first - second).max() > 1e-3


def test_a_mixture_is_between_its_bases():
    net = models.digits_cnn(width=4)
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    std, rob = (models.logits_fn(net, net.init(jax.random.key(n), images)) for n in (1, 2))
    shares = [jax.nn.softmax(base(images)) for base in (std, rob)]
    for alpha in (0.0, 0.25, 1.0):
        model = models.mixture(std=std, rob=rob, alpha=alpha)
        found, _ = model.apply({}, {}, images, train=False)
        expected = (1 - alpha) * shares[0] + alpha * shares[1]
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
    one, two = (models.mixture(std=std, rob=rob, alpha=alpha) for alpha in (0.1, 0.9))
    assert jax.tree.structure(one) == jax.tree.structure(two)  # the weight is a leaf
    with pytest.raises(ValueError, match="alpha must be"):
        models.mixture(std=std, rob=rob, alpha=1.5)
    with pytest.raises(ValueError, match="std must be a network with its weights"):
        models.mixture(std="runs/a", rob=rob, alpha=0.5)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two seeds of a line and of mixtures of its ends, the strong attack on the lines' fronts."""
    mixed = replace(
        BASE,
        name="mixture",
        objective=use("standard"),
        epochs=0,
        model=use("mixture", std="member:TRADES beta 0", rob="member:TRADES beta 6", alpha=0.5),
        sweep={"model.alpha": (0.3, 0.6)},
    )
    half = replace(mixed, name="half", sweep={})
    tradeoff = Tradeoff(
        name="lines",
        seeds=(0, 1),
        members=(replace(TRADES, sweep={"objective.beta": (0, 1, 6)}), half, mixed),
        front_evaluators=(use("pgd", steps=3, threat=use("l2", eps=0.5)),),
        planes=(("clean", "worst PGD"), ("clean", "AutoAttack linf 0.2")),  # nobody measures it
        reference=(0.1, 0.0),
    )
    folder, said = tmp_path_factory.mktemp("lines"), []
    return run_tradeoff(tradeoff, folder, quiet=True, say=said.append), folder, said


def test_a_sweep_is_one_program_and_one_line(report):
    results, _, said = report
    assert not [line for line in said if "failed" in line]
    assert [line for line in said if line.startswith("6 runs in one program")]
    names = ["TRADES beta 0", "TRADES beta 1", "TRADES beta 6"]
    names += ["half", "mixture alpha 0.3", "mixture alpha 0.6"]
    assert list(results["members"]) == names
    assert results["members"]["TRADES beta 6"]["sweep"] == {
        "line": "TRADES", "knob": "beta", "value": 6.0,
    }  # fmt: skip
    lines = measured_lines(results["members"], Plane("clean", "worst PGD"))
    assert [(m.line.name, m.line.values) for m in lines] == [
        ("TRADES", ["0", "1", "6"]),
        ("half", [""]),
        ("mixture", ["0.3", "0.6"]),
    ]
    assert lines[0].seeds.shape == (3, 2, 2)
    clean, robust = lines[0].right
    assert clean.shape == (3, 2, 360)
    np.testing.assert_allclose(clean.mean((1, 2)), lines[0].line.clean[:, 0])
    np.testing.assert_allclose(robust.mean((1, 2)), lines[0].line.robust[:, 0])


def test_the_report_stands_before_all_lines_are_there(report):
    _, folder, said = report
    early = [place for place, line in enumerate(said) if "have 3 members so far" in line]
    late = [place for place, line in enumerate(said) if line.startswith("mixture alpha 0.3")]
    assert len(early) == 1
    assert early[0] < late[0]
    text = (folder / "report.html").read_text()
    assert "area above (10 %, 0 %)" in text
    assert "paired resamples of 360 images and 2 seeds" in text
    assert (folder / "tradeoff.png").is_file()
    assert not (folder / "tradeoff_1.png").exists()


def test_the_costly_attack_sees_the_points_on_each_front_alone(report):
    results, _, _ = report
    assert len(results["members"]["half"]["runs"][0]["rows"]) == 2  # a line of one point
    for line in ("TRADES", "mixture"):
        swept = {n: m for n, m in results["members"].items() if "sweep" in m}
        own = {n: m for n, m in swept.items() if m["sweep"]["line"] == line}
        (measured,) = measured_lines(own, Plane("clean", "worst PGD"))
        best = [
            name
            for name, (clean, robust) in zip(own, measured.seeds.mean(1), strict=True)
            if not any((other > (clean, robust)).all() or ((other >= (clean, robust)).all() and (other > (clean, robust)).any())
                       for other in measured.seeds.mean(1))
        ]  # fmt: skip
        attacked = [n for n, m in own.items() if len(m["runs"][0]["rows"]) == 2]
        assert set(attacked) <= set(best)
        assert attacked


def test_the_fronts_are_printed_from_the_file(report):
    results, folder, said = report
    text = fronts_markdown(folder / "results.json")
    assert text.startswith("| method | knob | area above (10 %, 0 %) |")
    assert text.splitlines()[2].startswith("| TRADES | beta | ")
    assert [line for line in said if line == text.splitlines()[-1].removeprefix("- ")]
    other = folder / "other.json"
    plain = {n: {k: v for k, v in m.items() if k != "sweep"} for n, m in results["members"].items()}
    other.write_text(json.dumps({**results, "members": plain}))
    with pytest.raises(ValueError, match="holds no member of a trade-off with a sweep"):
        fronts_markdown(other)


def member(value, *accuracies):
    """One point with a seed for each pair of accuracies over a hundred images."""
    columns = ("clean", "worst PGD")
    runs = [
        Row(
            "PGD",
            tuple(Number(c, a, a, a) for c, a in zip(columns, pair, strict=True)),
            {"right": packed_right({c: np.arange(100) < round(100 * a) for c, a in zip(columns, pair, strict=True)})},
            kind="pgd",
        )
        for pair in accuracies
    ]  # fmt: skip
    sweep = {} if value is None else {"sweep": {"line": "A", "knob": "beta", "value": value}}
    return {"runs": [{"rows": [row.to_dict()]} for row in runs], **sweep}


def test_two_columns_are_of_the_same_images_where_one_row_has_both():
    def row(kind, *numbers):
        return Row(kind, tuple(Number(c, a, a - 0.1, a + 0.1) for c, a in numbers), kind=kind)

    pgd = row("pgd", ("clean", 0.8), ("worst PGD", 0.5))
    attacked = row("autoattack", ("clean", 0.9), ("AutoAttack", 0.4))
    curve = row("curve", ("curve", 0.3))
    ((clean, robust),) = numbers_on([[pgd, attacked, curve]], ("clean", "AutoAttack"))
    assert (clean.value, robust.value) == (0.9, 0.4)
    ((clean, robust),) = numbers_on([[pgd, attacked, curve]], ("clean", "curve"))
    assert (clean.value, robust.value) == (0.8, 0.3)
    assert numbers_on([[pgd, curve], [pgd]], ("clean", "curve")) is None


def test_one_seed_shows_its_interval_as_a_cross(tmp_path):
    pytest.importorskip("matplotlib")
    ends = np.array([[0.9, 0.88, 0.92], [0.8, 0.77, 0.83]])
    lines = [Line("A", "beta", ["1", "2"], ends, ends - 0.3)]
    sizes = []
    for bands in (True, False):
        path = tmp_path / f"{bands}.png"
        draw_fronts(path, lines, title="t", clean_label="c", robust_label="r", bands=bands)
        sizes.append(path.read_bytes())
    assert sizes[0] != sizes[1]


def test_the_table_by_hand():
    """Two seeds; areas of each, and the robust accuracy of their mean between measured points."""
    members = {
        "A 1": member(1.0, (0.96, 0.2), (0.94, 0.2)),
        "A 2": member(2.0, (0.91, 0.6), (0.89, 0.4)),
        "B": member(None, (0.9, 0.1), (0.9, 0.1)),
    }
    plane = Plane("clean", "worst PGD")
    lines = measured_lines(members, plane)
    # Areas above (0.5, 0): 0.41 x 0.6 + 0.05 x 0.2 = 0.256 and 0.39 x 0.4 + 0.05 x 0.2 = 0.166,
    # of 0.5: 51.2 and 33.2 %, their mean 42.2 with half of their range, 9.0.
    settings = Settings((0.5, 0.0), (0.89, 0.925, 0.95))
    rotated = fronts_table(lines, settings, Plane("spatial grid", "worst PGD"))
    assert rotated[0][-1] == "robust at 95 % spatial grid"
    table = fronts_table(lines, settings, plane)
    assert table == [
        ["method", "knob", "area above (50 %, 0 %)", "robust at 89 % clean",
         "robust at 92.5 % clean", "robust at 95 % clean"],
        ["A", "beta", "42.2 ±9.0", "-", "35.0", "20.0"],
        ["B", "-", "8.0 ±0.0", "-", "-", "-"],
    ]  # fmt: skip
    assert round_values(lines) == (0.9, 0.92, 0.94)


@pytest.mark.parametrize(
    "fronts",
    [5, {"reference": 5}, {"planes": [[1]]}, {"compared": [1]}, {"clean_at": "x"}],
)
def test_a_damaged_file_of_fronts_is_one_line(fronts, tmp_path):
    row = Row("r", (Number("clean", 0.9, 0.8, 1.0), Number("r", 0.5, 0.4, 0.6)), kind="pgd")
    run = {"rows": [row.to_dict()]}
    members = {
        str(value): {"runs": [run], "sweep": {"line": "a", "knob": "k", "value": value}}
        for value in (1, 2)
    }
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"members": members}))
    assert "| a | k |" in fronts_markdown(path)
    path.write_text(json.dumps({"members": members, "fronts": fronts}))
    with pytest.raises(
        ValueError, match=r"results\.json holds rows in an unknown format"
    ) as caught:
        fronts_markdown(path)
    assert "\n" not in str(caught.value)


def test_a_line_without_a_name_is_one_line_too(tmp_path):
    """A fuzzer found it."""
    damaged = member(1.0, (0.9, 0.2)) | {"sweep": {"line": None, "knob": "k", "value": 1}}
    (tmp_path / "results.json").write_text(json.dumps({"members": {"A 1": damaged}}))
    with pytest.raises(ValueError, match=r"results\.json holds rows in an unknown format"):
        fronts_markdown(tmp_path / "results.json")
