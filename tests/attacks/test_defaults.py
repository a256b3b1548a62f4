"""The numbers that papers prescribe and users leave alone, in functions and in bound attacks."""

import dataclasses
import inspect

import pytest

from jaxrobust import attacks

# Of each function, its bound attack and what both take if nobody says otherwise.
NUMBERS = {
    "apgd": ("APGD", {"steps": 100, "restarts": 1, "eot": 1}),
    "fab": ("FAB", {"steps": 100, "restarts": 1, "eta": 1.05}),
    "square": ("Square", {"queries": 5000, "p_init": 0.8}),
    "min_margin": ("MinMargin", {"steps": 100, "targets": 9}),
    "cr": ("CR", {"steps": 150, "period": 30, "targets": 3, "restarts": 5}),
    "malt_targets": ("MALT", {"targets": 9, "candidates": 100}),
    "pma": ("PMA", {"steps": 100}),
    "ddn": ("DDN", {"steps": 1000, "gamma": 0.05, "init_norm": 1.0}),
    "fmn": ("FMN", {"steps": 1000, "step_size": 1.0, "gamma": 0.05, "final_gamma": 0.001}),
    "pdpgd": (
        "PDPGD",
        {
            "steps": 500,
            "primal_lr": 0.1,
            "primal_lr_decrease": 0.01,
            "dual_ratio_init": 0.01,
            "dual_lr": 0.1,
            "dual_lr_decrease": 0.1,
            "dual_ema": 0.9,
            "dual_min_ratio": 1e-6,
            "proximal_steps": 5,
            "proximal_tolerance": 0.01,
        },
    ),
    "deepfool": ("DeepFool", {"steps": 100, "overshoot": 0.02}),
    "superdeepfool": (
        "SuperDeepFool",
        {"steps": 100, "deepfool_steps": 100, "overshoot": 0.02, "search_steps": 10},
    ),
    "sigma_zero": (
        "SigmaZero",
        {
            "steps": 1000,
            "step_size": 1.0,
            "sigma": 0.001,
            "threshold": 0.3,
            "threshold_rate": 0.01,
        },
    ),
    "worst_of_k": ("WorstOfK", {"k": 10}),
    "spatial_grid": ("SpatialGrid", {"counts": (5, 5, 31)}),
}


@pytest.mark.parametrize("function", NUMBERS)
def test_functions_and_bound_attacks_have_one_default(function):
    bound, numbers = NUMBERS[function]
    fields = {field.name: field.default for field in dataclasses.fields(getattr(attacks, bound))}
    parameters = inspect.signature(getattr(attacks, function)).parameters
    for number, value in numbers.items():
        assert parameters[number].default == value, number
        assert fields[number] == value, number


def test_what_only_functions_take():
    fab, fmn = (inspect.signature(f).parameters for f in (attacks.fab, attacks.fmn))
    assert [fab[name].default for name in ("alpha_max", "beta")] == [0.1, 0.9]
    assert fmn["search_steps"].default == 10
    assert attacks.PGD.steps == 20
