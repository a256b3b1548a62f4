"""Every experiment file loads, says what it must, and trains two steps at reduced size."""

import importlib.util
import json
import math
import pathlib
import re

import jax
import numpy as np
import pytest

from jaxrobust.bench._plan_data import data_shape
from jaxrobust.bench._plan_programs import stock_convolutions, train_step_program
from jaxrobust.devices import device_mesh
from jaxrobust.experiment import (
    Experiment,
    Tradeoff,
    Validation,
    load,
    override,
    replace,
    use,
)
from jaxrobust.training import read_rows, train

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
TRADEOFF = FOLDER / "cifar10_tradeoff.py"
ONE_STEP = [FOLDER / f"{data}_one_step.py" for data in ("mnist", "cifar10")]
NARROW = FOLDER / "cifar10_narrow.py"
CERTIFIED = FOLDER / "mnist_certified.py"
PAPERS = sorted(
    p
    for p in FOLDER.glob("*.py")
    if p.name.startswith(("cifar10_", "cifar100_", "mnist_"))
    and p not in (TRADEOFF, CERTIFIED, NARROW, *ONE_STEP)
)
LATER = ("bartoldson", "wang", "gkl", "hat", "eat", "liet", "n", "grad")
SMALL = {
    "wide_resnet": {"depth": 10, "width": 1},
    "preact_resnet18": {"width": 4},
    "resnet18": {"width": 4},
    "group_resnet18": {"width": 8},
    "vgg16": {"width": 2},
}


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_it_says_how_to_run_it_what_it_costs_and_what_was_published(path):
    config = load(path)
    assert isinstance(config, Experiment)
    assert config.name == path.stem
    docstring = path.read_text().split('"""')[1]
    for word in ("Command:", "Cost:", "Result:", "eps"):
        assert word in docstring, word
    assert re.search(rf"jaxrobust train (experiments/{path.name}|{path.stem}\b)", docstring)
    assert config.validation.size > 0  # never chosen on the test set


def two_steps(config, folder):
    settings = {"quiet": True, "stop_at": 2, "devices": jax.devices()[:1]}
    return train(config, folder, say=lambda _: None, **settings)


def small_bases(data, folder):
    """In place of the published bases: runs of a small network on the same data."""
    config = Experiment(
        name="base",
        data=use("synthetic", **data),
        model=use("digits_cnn", width=4),
        objective=use("standard"),
        threat=use("linf", eps=0.1),
        epochs=1,
        batch_size=16,
    )
    two_steps(config, folder / "base")
    return dict.fromkeys(("std", "rob"), str(folder / "base"))


def reduced(config, tmp_path):
    """The experiment on a few small images, with a narrow network."""
    gray = config.data.target == "mnist"
    data = {
        "size": 28 if gray else 32 if config.model.target == "vgg16" else 16,
        "channels": 1 if gray else 3,
        "train": 40,
        "test": 8,
        "num_classes": len(config.data.kwargs.get("classes", range(10))),
    }
    objective = {**config.objective.kwargs}
    if "steps" in objective:
        objective["steps"] = 2
    if "copies" in objective:
        objective["copies"] = 4
    model = {**config.model.kwargs, **SMALL.get(config.model.target, {})}
    if config.model.target == "mixed_classifier":
        model |= {"planes": (4, 4, 4), **small_bases(data, tmp_path)}
    changes = {
        "data": use("synthetic", **data),
        "model": use(config.model.target, **model),
        "objective": use(config.objective.target, **objective),
        "validation": Validation(size=0),
        "batch_size": 16,
    }
    if config.helper is not None:
        changes["helper"] = small_bases(data, tmp_path)["rob"]
    if config.init_from is not None:
        changes["init_from"] = None
    if config.generated is not None:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 255, (30, 16, 16, 3), dtype=np.uint8)
        np.savez(tmp_path / "generated.npz", image=images, label=rng.integers(0, 10, 30))
        path = str(tmp_path / "generated.npz")
        changes["generated"] = use("generated", path=path, fraction=0.7)
    return replace(config, **changes, epochs=1)


@pytest.mark.usefixtures("float64")
def test_schedules_of_recipes_are_the_authors(golden):
    data = golden("beyond_public_sched")

    def values(name, path, epochs):
        schedule = load(FOLDER / f"{name}.py").schedule(path, 10)
        return [float(schedule(10 * epoch)) for epoch in range(epochs)]

    rate, momentum = data["fastat.one_cycle.lr_momentum"].T
    for name in ("cifar10_n_fgsm_rn18", "cifar10_liet_rn18"):
        np.testing.assert_allclose(values(name, "learning_rate", 100), rate, rtol=1e-6)
        np.testing.assert_allclose(values(name, "optimizer.momentum", 100), momentum, rtol=1e-6)
    lam = values("cifar10_liet_rn18", "objective.lam", 100)
    np.testing.assert_allclose(lam, data["liet.lam_100_100"], rtol=1e-6)
    gkl = "cifar10_gkl_wrn34"
    np.testing.assert_allclose(values(gkl, "learning_rate", 200), data["gkl.lr"], rtol=1e-6)
    eps = np.array(values(gkl, "threat.eps", 200)) * 255 / 8
    np.testing.assert_allclose(eps, data["gkl.eps_factor"], rtol=1e-6)
    assert values(gkl, "awp", 11)[8:] == [0, 0.005, 0.005]
    rate, momentum = data["wang.cosinew.lr_momentum"].T
    np.testing.assert_allclose(values("cifar10_wang_wrn28", "learning_rate", 400), rate, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_it_trains_two_steps_at_reduced_size(path, tmp_path):
    config = load(path)
    # Optax's AdamW is not strict.
    with jax.numpy_dtype_promotion("standard"):
        run = two_steps(reduced(config, tmp_path), tmp_path / "run")
    assert int(run.state.step) == 2
    for leaf in jax.tree.leaves(jax.device_get(run.state.params)):
        assert np.isfinite(leaf).all()
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["name"] == config.name


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


RECIPES = [p for p in PAPERS if p.stem.split("_")[1] in LATER]


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_its_step_traces_at_its_real_shapes(path, tmp_path):
    config = load(path)
    if config.helper is not None:
        data = {"size": 32, "channels": 3, "train": 40, "test": 8, "num_classes": 10}
        config = replace(config, helper=small_bases(data, tmp_path)["rob"])
    with stock_convolutions():
        mesh = device_mesh(jax.devices()[:1])
        step, arguments = train_step_program(config, data_shape(config), mesh)
        state, metrics = jax.eval_shape(step, *arguments)
    assert shapes(state.params) == shapes(arguments[0].params)
    assert metrics["loss"].shape == ()


def test_the_tradeoff_says_how_to_run_it_and_covers_the_papers():
    config = load(TRADEOFF)
    assert isinstance(config, Tradeoff)
    assert config.name == TRADEOFF.stem
    docstring = TRADEOFF.read_text().split('"""')[1]
    for word in ("Command:", "Cost:     not run", "Result:   none", "eps", "--set"):
        assert word in docstring, word
    assert f"jaxrobust tradeoff {TRADEOFF.stem}" in docstring
    assert len(config.seeds) == 3
    demo = load(FOLDER / "digits_tradeoff.py")
    assert [m.name for m in config.members] == [m.name for m in demo.members]
    for member in config.members:
        assert member.validation.size > 0
        assert member.threat == use("linf", eps=8 / 255)
        assert override(member, ["epochs=1", "batch_size=64"]).epochs == 1


def test_the_narrow_network_compares_two_of_the_methods_on_all_images():
    config, small = load(NARROW), load(ONE_STEP[1])
    assert (config.name, config.seeds) == (NARROW.stem, (0, 1, 2))
    one, ten = config.members
    assert (one.name, ten.name) == ("N-FGSM", "TRADES-10")
    for member in config.members:
        (same,) = (m for m in small.members if m.name == member.name)
        assert member.objective == same.objective
        assert member.threat == same.threat
        assert member.data.kwargs["train_split"] == "train[:50000]"
        ramp = member.schedules["threat.eps"].kwargs
        assert (ramp["to_epoch"], ramp["end"]) == (member.epochs / 3, member.threat.kwargs["eps"])
        assert member.validation.size > 0
    for name in ("data", "model", "threat", "optimizer", "learning_rate", "augment", "ema_decay"):
        assert getattr(one, name) == getattr(ten, name)


@pytest.mark.parametrize("path", ONE_STEP, ids=lambda p: p.stem)
def test_one_step_is_compared_with_ten_under_the_same_conditions(path):
    config, mnist = load(path), load(ONE_STEP[0])
    assert isinstance(config, Tradeoff)
    assert isinstance(mnist, Tradeoff)
    assert config.name == path.stem
    docstring = path.read_text().split('"""')[1]
    for word in ("Command:", "Cost:", "Result:", "eps", f"tradeoff experiments/{path.name}"):
        assert word in docstring, word
    assert len(config.seeds) == 3
    methods = {"fgsm_rs", "n_fgsm", "grad_align", "liet", "pgi", "trades", "pgd_at"}
    assert {member.objective.target for member in config.members} == methods
    for member, other in zip(config.members, mnist.members, strict=True):
        assert (member.name, member.objective) == (other.name, other.objective)
        assert member.schedules["threat.eps"].kwargs["to_epoch"] == member.epochs / 3
        assert member.validation.size > 0
        assert member.schedules["threat.eps"].kwargs["end"] == member.threat.kwargs["eps"]
        first = config.members[0]
        for name in ("data", "model", "threat", "optimizer", "learning_rate", "ema_decay"):
            assert getattr(member, name) == getattr(first, name)


def test_the_table_of_one_step_training_is_printed_from_rows(tmp_path):
    """After new rows: python experiments/one_step_figure.py --write."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("one_step", FOLDER / "one_step_figure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    methods = {name: module.read(name) for name in module.NAMES}
    for path, found in zip([*ONE_STEP, NARROW], methods.values(), strict=True):
        members = load(path).members
        assert [(m.name, m.epochs) for m in found] == [(m.name, m.epochs) for m in members]
        minutes = [m.core_minutes for m in found]
        assert max(minutes) < 1.15 * min(minutes), "the cost is not equal"
    page = (FOLDER.parent / "docs" / "recipes.md").read_text()
    assert f"{module.MARK}\n\n{module.table(methods)}\n\n" in page
    module.draw(tmp_path / "figure.png", methods)
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_certified_training_is_compared_at_two_radii_under_the_same_conditions():
    config = load(CERTIFIED)
    assert isinstance(config, Tradeoff)
    assert len(config.seeds) == 3
    first, radii = config.members[0], set()
    for member in config.members:
        radii.add(eps := member.schedules["threat.eps"].kwargs["end"])
        assert member.name.endswith(f" {eps:g}")
        for name in ("data", "model", "threat", "optimizer", "learning_rate", "epochs"):
            assert getattr(member, name) == getattr(first, name)
    *attacks, bracket = config.evaluators
    assert radii == set(bracket.kwargs["radii"]) == {attack.kwargs["eps"] for attack in attacks}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CuSP", "Adaptive Smoothing"])
def test_its_members_train_two_steps_at_reduced_size(name, tmp_path):
    (config,) = (member for member in load(TRADEOFF).members if member.name == name)
    with jax.numpy_dtype_promotion("standard"):
        run = two_steps(reduced(config, tmp_path), tmp_path / "run")
    assert int(run.state.step) == 2
