"""The scaling law as a planner: the command, its numbers, and the sizes of wide ResNets."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import pytest
from click.testing import CliRunner

from jaxrobust import bench, models, scaling
from jaxrobust.cli import cli
from jaxrobust.commands import plan_for_budget
from jaxrobust.experiment import load

ROOT = pathlib.Path(__file__).parents[2]
WANG = ROOT / "experiments" / "cifar10_wang_wrn28.py"
DIGITS = ROOT / "experiments" / "digits_trades.py"


def run(*words):
    done = CliRunner().invoke(cli, ["plan", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_law_network_images_loss_time_and_rows(tmp_path):
    out = run(WANG, "--budget", "1e21", "--json", tmp_path / "budget.json")
    best = scaling.compute_optimal(1e21, fid=1.65)
    for expected in (
        f"{best.params / 1e6:.4g} million parameters",
        f"{best.images / 1e6:.4g} million seen",
        f"expected loss  {best.loss:.4f}",
        "predicts this loss and nothing else: no clean accuracy, no AutoAttack",
        "36.48 million parameters",
        "v5e, one chip: 1.41e+03 hours",
        "WRN-82-8 (Bartoldson 2024): 79.1M parameters, 341M images seen: 93.11, 71.59",
        "A = 6.00081",
        "kappa = 0.60421",
        "FID 1.65 of the generated images, 7822 N D FLOP",
    ):
        assert expected in out, expected
    assert "outside of the fit" not in out
    found = json.loads((tmp_path / "budget.json").read_text())
    assert found["params"] == pytest.approx(float(best.params))
    assert found["law"]["B"] == 7000
    assert found["ran"] is False


def test_an_experiment_beyond_the_law_is_said_to_be():
    out = run(DIGITS, "--budget", "1e15 FLOPs", "--fid", "0", "--set", "objective.steps=3")
    for difference in (
        "the published runs took 5.7e+18 to 1.4e+21 FLOP",
        "its data is digits, not cifar10",
        "it has no generated images",
        "its attack has not ten steps",
        "its radius is not 8/255",
        "its network is digits_cnn, not wide_resnet",
    ):
        assert f"outside of the fit: {difference}" in out
    assert "no wide ResNet of the published proportions" in out


def a_plan(experiment="x", topology="v5e:2x2", *, fits=True, **settings):
    """A plan as the TPU's compiler makes it: 4 chips, 1e12 operations each in 10 ms."""
    step = bench.ProgramPlan("train step", 64, 3.0, fits, "" if fits else "too large", 2.0**34)
    step = step._replace(flops=10**12, bound_seconds=0.01)
    return bench.Plan("x", topology, 4, 10, (step,), 0.0, 0.0, None, (), "somewhere")


def test_chip_hours_are_those_of_the_compiled_step(monkeypatch):
    monkeypatch.setattr("jaxrobust.commands._budget.plan", a_plan)
    said = []
    options = {"path": None, "say": said.append}
    found = plan_for_budget(load(WANG), (100.0, "chip-hours"), ["v5e:2x2"], **options)
    assert found.flops == pytest.approx(100 * 3600 * 1e14)
    (duration,) = found.durations
    assert duration.compiled
    assert (duration.hours, duration.chip_hours) == pytest.approx((25, 100))
    assert any("bound of the experiment's compiled step; nothing ran" in line for line in said)
    two = plan_for_budget(load(WANG), (1e21, "FLOP"), ["v5e:2x2", "v5e:4x4"], **options)
    assert [d.topology for d in two.durations] == ["v5e:2x2", "v5e:4x4"]


def test_a_step_that_does_not_fit_has_no_duration():
    with pytest.raises(ValueError, match="does not fit .too large.; choose a larger slice"):
        bench.plan_budget(load(WANG), 1e21, plans=[a_plan(fits=False)])


@pytest.mark.parametrize(("depth", "width"), [(10, 1), (16, 2), (28, 10)])
def test_the_sizes_of_wide_resnets_are_counted(depth, width):
    network = models.wide_resnet(depth=depth, width=width)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
    counted = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    assert bench.wide_resnet_parameters(depth, width) == counted


@pytest.mark.parametrize("flops", [1e18, 1e20, 1e21, 1e23])
def test_networks_are_about_as_large_as_the_best(flops):
    found = bench.plan_budget(load(WANG), flops)
    assert found.networks
    for name, size in found.networks:
        depth, width = map(int, name.split("-")[1:])
        assert size == bench.wide_resnet_parameters(depth, width)
        assert size == pytest.approx(found.params, rel=0.11)


def test_published_networks_have_the_sizes_that_are_printed():
    from jaxrobust.bench._budget import PUBLISHED

    for row in PUBLISHED:
        depth, width = map(int, row.name.split(" ")[0].strip(",").split("-")[1:])
        assert row.params == pytest.approx(bench.wide_resnet_parameters(depth, width), rel=2e-3)
