"""What attacks cost: passes counted in the traced program, against the stated formulas."""

from dataclasses import is_dataclass

import jax
import jax.numpy as jnp
import pytest

from jaxrobust import attacks, threats
from tests.passes import CLASSES, SHAPE, Passes, network, passes_of

BATCH, N = 2, 5
LINF, L2, L0 = threats.linf(0.1), threats.l2(0.5), threats.l0(3)
TARGETED = attacks.APGD(threat=LINF, loss="margin_targeted", steps=N)
# Forward and backward passes of an example. What is beside the steps: the look at the returned
# image (PGD, FGSM), at the clean one (FAB, WorstOfK, MinMargin).
COSTS = {
    "PGD": (attacks.PGD(threat=LINF, steps=N), (N + 1, N)),
    "PGD, restarts": (attacks.PGD(threat=LINF, steps=N, restarts=2), (2 * (N + 1), 2 * N)),
    "FGSM": (attacks.FGSM(threat=LINF), (2, 1)),
    "WorstOfK": (attacks.WorstOfK(threat=LINF, k=4), (4 + 1, 0)),
    "RandomTransform": (attacks.RandomTransform(threat=LINF), (1, 0)),
    "SpatialGrid": (
        attacks.SpatialGrid(threat=threats.spatial(20, 1), counts=(2, 3, 2)),
        (2 * 3 * 2 + 1, 0),
    ),
    "APGD": (attacks.APGD(threat=LINF, steps=N), (N + 1, N + 1)),
    "FAB": (attacks.FAB(threat=LINF, steps=N), (2 * N + 1, (CLASSES - 1) * N)),
    "FAB, restarts": (
        attacks.FAB(threat=L2, steps=N, restarts=2),
        (2 * 2 * N + 1, (CLASSES - 1) * 2 * N),
    ),
    "MinMargin": (
        attacks.MinMargin(threat=LINF, steps=N, targets=2),
        (3 * (N + 1) + 1, 3 * (N + 1)),  # untargeted, then every target
    ),
    "MALT": (
        attacks.MALT(attack=TARGETED, targets=2),  # ranks two classes
        (1 + 2 * (N + 1), 2 + 2 * (N + 1)),
    ),
    "FMN": (attacks.FMN(threat=L2, steps=N), (N, N)),
    "DDN": (attacks.DDN(threat=L2, steps=N), (N, N)),
    "PDPGD": (attacks.PDPGD(threat=L2, steps=N), (N, N)),
    "SigmaZero": (attacks.SigmaZero(threat=L0, steps=N), (N, N)),
}
# The run decides how often loops are repeated: one repetition of each, and what is outside.
OPEN = {
    "APGD, random network": (attacks.APGD(threat=LINF, steps=N, restarts=2, eot=2), Passes(12, 12, 1)),
    "Square": (attacks.Square(threat=LINF, queries=7), Passes(1 + 1, 0, 1)),
    "PMA": (attacks.PMA(threat=LINF, steps=6), Passes(5, 2, 2)),
    "CR": (attacks.CR(threat=LINF, steps=6, period=3, targets=2, restarts=2), Passes(5, 2, 2)),
    "DeepFool": (attacks.DeepFool(threat=L2, steps=N), Passes(1, CLASSES - 1, 1)),
    "SuperDeepFool": (
        attacks.SuperDeepFool(threat=L2, steps=2, deepfool_steps=3, search_steps=3),
        Passes(6, 3, 2),
    ),
}  # fmt: skip


def found(attack, *targets):
    """Of one example: the batch's passes are those of its examples."""
    images, labels = jnp.full((BATCH, *SHAPE), 0.5), jnp.zeros(BATCH, int)

    def run(key, images, labels):
        return attack(network, key, images, labels, *targets)

    total = passes_of(run, jax.random.key(0), images, labels)
    assert total.forwards % BATCH == total.backwards % BATCH == 0
    return Passes(total.forwards // BATCH, total.backwards // BATCH, total.open)


@pytest.mark.parametrize("name", COSTS)
def test_passes_are_those_of_the_formula(name):
    attack, (forwards, backwards) = COSTS[name]
    assert found(attack) == Passes(forwards, backwards)


@pytest.mark.parametrize("name", OPEN)
def test_passes_of_a_repetition(name):
    attack, expected = OPEN[name]
    assert found(attack) == expected


@pytest.mark.parametrize("name", ["APGD", "FAB", "MALT", "FMN", "DDN", "PDPGD", "SigmaZero"])
def test_what_reports_count_is_what_runs(name):
    attack, expected = COSTS[name]
    assert attack.passes(CLASSES, targeted=False) == expected


def test_targets_cost_one_gradient_each():
    targets = jnp.ones(BATCH, int)
    assert found(TARGETED, targets)[:2] == TARGETED.passes(CLASSES, targeted=True)
    fab = attacks.FAB(threat=LINF, steps=N)
    assert found(fab, targets)[:2] == fab.passes(CLASSES, targeted=True)


def test_every_bound_attack_has_a_row():
    made = [attack for attack, _ in (*COSTS.values(), *OPEN.values())]
    bound = {name for name in dir(attacks) if "threat" in fields_of(getattr(attacks, name))}
    assert bound == {type(attack).__name__ for attack in made} - {"MALT"}


def fields_of(part):
    return part.__dataclass_fields__ if isinstance(part, type) and is_dataclass(part) else {}
