"""Numbers of experiments are checked when they are made; what does nothing is refused."""

from dataclasses import replace

import pytest

from jaxrobust import curricula, evaluators, schedules
from jaxrobust.experiment import (
    Evaluation,
    Experiment,
    Tradeoff,
    Validation,
    load,
    override,
    use,
)

NAN, INF = float("nan"), float("inf")
BASE = Experiment(
    name="base",
    data=use("digits"),
    model=use("mlp"),
    objective=use("trades"),
    threat=use("linf", eps=0.1),
)
NUMBERS = {
    "epochs": [-1, 1.5, True, NAN],
    "batch_size": [0, 8.0],
    "microbatches": [0, 3],  # does not divide the batch
    "seed": [-1, 0.5, 2**32],
    "weight_decay": [-1e-4, NAN, INF],
    "clip_norm": [-1.0, NAN, INF],
    "awp": [-0.1, NAN, INF],
    "ema_decay": [-0.1, 1.0, NAN],
    "ema_warmup": [-0.1, 1.0, NAN],
    "ema_copied_steps": [-1, 0.5],
    "teacher": [use("mlp")],  # no use for it
    "helper": ["", 3, {"weights": "a"}, "runs/standard"],
    "name": ["", " x", "a/b", "..", "a\nb", 3, "x" * 300],
    "published": [{"clean": NAN}],
    "learning_rate": [
        use("cosine", peak=INF),
        use("cosine", peak=-0.1),
        use("cosine", peak=NAN),
        use("piecewise", value=0.1, drops=[(3, INF)]),
        use("stages", values=[(0, INF)]),
        use("constant", value=-0.1),
    ],
    "optimizer": [use("sgd", momentum=1.5), use("adam", b1=-0.1), use("sgd", momentum=NAN)],
    "objective": [use("trades", beta=NAN), use("trades", beta="6/0")],
    "threat": [use("linf", eps=NAN), use("linf", eps="8/0")],
    "schedules": [
        {"awp": use("linear", start=0.0, end=INF)},
        {"threat.eps": use("linear", start=0.0, end=0.1, from_epoch=3, to_epoch=2)},
    ],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_an_experiment(name):
    averaged = replace(BASE, ema_decay=0.9)  # where a warm-up has something to do
    for value in NUMBERS[name]:
        with pytest.raises(ValueError, match=name) as refused:
            replace(averaged, **{name: value})
        assert "\n" not in str(refused.value), value


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_warmup": 0.1},
        {"ema_batch_stats": "average"},
        {"ema_copied_steps": 1},
        {"awp": 0.1, "schedules": {"awp": use("constant", value=0.1)}},
        {"optimizer": use("adam"), "schedules": {"optimizer.momentum": use("constant", value=0.9)}},
    ],
)
def test_settings_without_effect(changes):
    with pytest.raises(ValueError, match="needs an average|which replaces it|is no value that may"):
        replace(BASE, **changes)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Validation(size=-1),
        lambda: Validation(every=0),
        lambda: Validation(steps=0),
        lambda: Evaluation(steps=0),
        lambda: Evaluation(restarts=0),
        lambda: Evaluation(batch_size=0),
        lambda: Evaluation(step_size=-0.1),
        lambda: Evaluation(step_size=NAN),
        lambda: Evaluation(spatial_degrees=-1.0),
        lambda: Evaluation(spatial_shift_px=INF),
        lambda: Evaluation(spatial_grid=(5, 5)),
        lambda: Evaluation(spatial_grid=(5, 0, 3)),
        lambda: evaluators.eps_curve(norm="l2", radii=(NAN,)),
        lambda: evaluators.eps_curve(norm="l2", radii=(0.0, 1.0)),
        lambda: evaluators.eps_curve(norm="l2", radii=(1.0,), images=True),
        lambda: evaluators.bracket(norm="l2", radii=(NAN,)),
        lambda: evaluators.bracket(norm="l2", radii=(1.0,), bound_batch_size=0),
        lambda: evaluators.certified(sigma=NAN),
        lambda: evaluators.certified(sigma=INF),
        lambda: evaluators.certified(confidence=NAN),
        lambda: evaluators.certified(selection=0),
        lambda: evaluators.certified(radii=(NAN,)),
        lambda: Tradeoff(name="a/b", members=(BASE,)),
        lambda: Tradeoff(name="t", members=(BASE,), seeds=(-1,)),
        lambda: Tradeoff(
            name="t", members=(BASE,), evaluators=(use("autoattack", norm="l2", eps=NAN),)
        ),
        lambda: schedules.constant(value=NAN),
        lambda: schedules.piecewise(value=NAN, drops=[]),
        lambda: schedules.piecewise(value=0.1, drops=[(3, 0.1), (2, 0.1)]),
        lambda: schedules.piecewise(value=0.1, drops=[(-1, 0.1)]),
        lambda: schedules.stages(values=[(0, NAN)]),
        lambda: schedules.linear(start=NAN, end=1.0),
        lambda: schedules.one_cycle(peak=INF),
        lambda: schedules.one_cycle(peak=0.1, warmup=2.0),
        lambda: schedules.exponential_warmup(peak=0.1, periods=0.0),
        lambda: schedules.cosine(peak=0.1, warmup_epochs=-1.0),
        lambda: schedules.cosine(peak=0.1, per="batch"),
        lambda: curricula.cusp(epochs=0),
        lambda: curricula.cusp(eps=(0.1, 0.2, 8)),
        lambda: curricula.cusp(degrees=(-1, 2, 3)),
        lambda: curricula.cusp(peak=NAN),
    ],
)
def test_numbers_elsewhere(make):
    with pytest.raises(ValueError, match="must|NaN") as refused:
        make()
    assert "\n" not in str(refused.value)


def test_what_is_allowed():
    averaged = {"ema_decay": 0.9, "ema_warmup": 0.0, "ema_batch_stats": "average"}
    replace(BASE, epochs=0, seed=2**32 - 1, name="AT with JS (β = 6)", **averaged)
    lam = use("stages", values=[(0, INF), (60, -1.0)])
    replace(BASE, objective=use("gairat"), schedules={"objective.lam": lam})
    schedules.linear(start=3.0, end=-1.0, from_epoch=-1, to_epoch=119)


def test_assignments_may_come_in_any_order():
    words = ["ema_warmup=0.1", "ema_decay=0.9", "objective=pgd_at", "objective.steps=3"]
    changed = override(BASE, words)
    assert (changed.ema_warmup, changed.ema_decay, changed.objective.kwargs) == (0.1, 0.9, {"steps": 3})  # fmt: skip
    with pytest.raises(ValueError, match="ema_warmup needs an average"):
        override(BASE, ["ema_warmup=0.1", "epochs=3"])
    with pytest.raises(ValueError, match="threat.eps: '8/0' is no fraction"):
        override(BASE, ["threat.eps=8/0"])


HEAD = "from jaxrobust.experiment import Experiment, use\n\n"
MODEL = 'config = Experiment(name="x", data=use("digits"), model=use("mlp"),\n'
FILES = {
    "syntax": ("config = = 3\n", 3, "SyntaxError: invalid syntax"),
    "name": ("a = 1\nconfig = unknown\n", 4, "NameError: name 'unknown' is not defined"),
    "division": ("def f():\n    return 8 / 0\nconfig = f()\n", 4, "ZeroDivisionError: division by"),
    "import": ("import jaxrobust_extra\n", 3, "ModuleNotFoundError: No module named"),
    "argument": (f"{MODEL}    objectiv=3)\n", 3, "TypeError: .*objectiv"),
    "own": (f'{MODEL}    objective=use("trades"), threat=use("linf", eps=0.1), seed=-1)\n', 3, "seed must be"),
    "exit": ("import sys\nsys.exit()\n", 4, "SystemExit"),
    "lines": ('raise RuntimeError("one\\ntwo")\n', 3, "RuntimeError: one two"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_error_in_an_experiment_file_names_its_line(name, tmp_path):
    text, line, message = FILES[name]
    path = tmp_path / "e.py"
    path.write_text(HEAD + text)
    with pytest.raises(ValueError, match=message) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is not None


def test_an_experiment_file_may_lie_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path}/none.py is not an experiment file"):
        load("~/none.py")
    with pytest.raises(ValueError, match=r"~nobody-here/none.py: .*absolute path"):
        load("~nobody-here/none.py")
