"""The numbers of objectives that papers prescribe and users leave alone."""

import pytest

from jaxrobust import objectives

BOXES = {"kappa": 1.0, "steps": 8, "restarts": 3}
EXPRESSIVE = {"alpha": 0.5, "attack_scale": 1.0} | BOXES
NUMBERS = {
    "adaptive_smoothing": {
        **{"bce": 1.5, "ce": 0.0, "product": 0.3, "clean_scale": 1.0},
        **{"weight": 0.4, "copies": 10, "steps": 75},
    },
    "avg_norms": {"steps": 10},
    "binary_trades": {"lam": 5.0, "steps": 20},
    "cc_ibp": EXPRESSIVE,
    "crown_ibp": {"kappa": 1.0},
    "distance_pgd_at": {"steps": 10, "clip_loss": 0.0},
    "distance_trades": {"beta": 6.0, "steps": 10, "clip_loss": 0.0},
    "eat": {"steps": 10},
    "exp_ibp": EXPRESSIVE,
    "fat": {"steps": 10, "tau": 0},
    "gair_fat": {"lam": 0.0, "steps": 10, "tau": 0},
    "gair_trades": {"beta": 6.0, "lam": 3.0, "steps": 10},
    "gairat": {"lam": -1.0, "steps": 10},
    "gkl": {
        **{"alpha": 4.0, "beta": 20.0, "gamma": 1.0},
        **{"temperature": 1.0, "attack_beta": 0.0, "steps": 5},
    },
    "grad_align": {"lam": 0.2},
    "hat": {"h": 2.0, "beta": 2.5, "gamma": 0.5, "steps": 10},
    "ibp": {"kappa": 1.0},
    "lbgat": {"beta": 0.0, "steps": 10},
    "liet": {"lam": 100.0, "label_smoothing": 0.6, "min_mask": 0.1, "max_mask": 0.5, "every": 20},
    "mart": {"beta": 6.0, "steps": 10},
    "max_norms": {"steps": 10},
    "msd": {"steps": 50},
    "mtl_ibp": EXPRESSIVE,
    "n_fgsm": {"noise": 2.0},
    "nuat": {"lam": 4.0},
    "pgd_at": {"steps": 10},
    "pgi": {"lam": 10.0, "momentum": 0.3, "reset": 40},
    "ramp": {"lbd": 1.5, "steps": 10},
    "sabr": {"shrink": 0.4, "relative_step": 0.2} | BOXES,
    "score": {"beta": 4.0, "steps": 10, "clip": 0.0},
    "trades": {"beta": 6.0, "steps": 10, "clean_passes": 1},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_nobody_gave(name):
    objective = getattr(objectives, name)()
    assert {number: getattr(objective, number) for number in NUMBERS[name]} == NUMBERS[name]
    if name != "liet":
        assert getattr(objective, "label_smoothing", 0.0) == 0.0
