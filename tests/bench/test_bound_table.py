"""The benchmark of certified bounds, and the figure of certified training, at small size."""

import importlib.util
import json
import pathlib

import jax.numpy as jnp
import pytest

from benchmarks import bound_table

ROOT = pathlib.Path(__file__).parents[2]


def test_radii_that_are_proved_are_below_those_that_are_broken():
    options = {"depths": (2,), "widths": (8,), "methods": ("ibp", "crown"), "images": 4}
    ibp, crown = bound_table.limit_table(**options)
    assert (ibp.method, crown.method) == ("ibp", "crown")
    assert 0 < ibp.radius <= crown.radius < crown.attacked
    assert ibp.attacked == crown.attacked


@pytest.mark.parametrize(("name", "values"), [("resnet2b", 6244), ("oval_base", 3172)])
def test_networks_are_those_of_the_reference(name, values):
    network, counted = getattr(bound_table, f"_{name}")()
    assert counted == values
    assert network(jnp.zeros((1, 32, 32, 3))).shape == (1, 10)


def test_the_figure_of_certified_training_is_drawn_from_rows(tmp_path):
    pytest.importorskip("matplotlib")
    path = ROOT / "experiments" / "certified_figure.py"
    spec = importlib.util.spec_from_file_location("certified_figure", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    points = [
        {"eps": eps, "certified": {"value": low}, "attacked": {"value": 0.8}}
        for eps, low in ((0.05, 0.5), (0.1, 0.2))
    ]
    numbers = [{"column": "clean", "value": 0.9}, {"column": "AutoAttack linf 0.1", "value": 0.7}]
    rows = [
        {"kind": "autoattack", "numbers": numbers},
        {"kind": "bracket", "numbers": [], "detail": {"points": points}},
    ]
    members = {name: {"runs": [{"rows": rows}]} for name in ("standard", "PGD-AT", "IBP")}
    (tmp_path / "rows.json").write_text(json.dumps({"members": members}))
    read = module.read(tmp_path / "rows.json")
    assert read["IBP"]["autoattack"] == 0.7
    module.draw(tmp_path / "figure.png", read)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
