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


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("digits_certified", ("standard", "PGD-AT", "IBP")),
        ("mnist_certified", ("IBP 0.1", "SABR 0.1", "IBP 0.3")),
    ],
)
def test_the_figure_of_certified_training_is_drawn_from_rows(tmp_path, name, members):
    pytest.importorskip("matplotlib")
    path = ROOT / "experiments" / "certified_figure.py"
    spec = importlib.util.spec_from_file_location("certified_figure", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def numbers(**values):
        return [{"column": column.replace("_", " "), "value": v} for column, v in values.items()]

    points = [
        {"eps": eps, "certified": {"value": low}, "attacked": {"value": 0.8}}
        for eps, low in ((0.1, 0.5), (0.3, 0.2))
    ]
    attacks = [
        {
            "kind": "autoattack",
            "numbers": numbers(clean=0.8, AutoAttack_linf=low),
            "detail": {"protocol": {"eps": eps}},
        }
        for eps, low in ((0.1, 0.7), (0.3, 0.4))
    ]
    rows = [
        {"kind": "pgd", "numbers": numbers(clean=0.9)},
        *attacks,
        {"kind": "bracket", "numbers": [], "detail": {"points": points}},
    ]
    found = {member: {"runs": [{"rows": rows}] * 2} for member in members}
    (tmp_path / "rows.json").write_text(json.dumps({"members": found}))
    read = module.read(tmp_path / "rows.json")
    assert len(read[members[0]]) == 2
    assert read[members[0]][0] == {
        "clean": 0.9, "first": 0.8, "autoattack": {0.1: 0.7, 0.3: 0.4},
        "certified": {0.1: 0.5, 0.3: 0.2}, "attacked": {0.1: 0.8, 0.3: 0.8},
    }  # fmt: skip
    assert list(module.of_radius(read, 0.3)) == (
        ["IBP"] if name == "mnist_certified" else [*members]
    )
    module.draw(tmp_path / "figure.png", name, read)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
