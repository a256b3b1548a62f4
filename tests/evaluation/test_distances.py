"""Distances of points from adversarial images: curves, optimality, costs, resumption."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.distances import distances_table
from jaxrobust import attacks, evaluation, threats
from jaxrobust.evaluation import AttackResultError
from jaxrobust.inputs import InputError

IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (24, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)


def linear(weights, images):
    return (images.reshape(len(images), -1) - 0.5) @ weights


NETWORK = jax.tree_util.Partial(linear, jnp.asarray(WEIGHTS))
CLASSES = np.asarray(NETWORK(IMAGES)).argmax(-1)
LABELS = np.where(np.arange(24) < 2, (CLASSES + 1) % 4, CLASSES)  # two clean errors
STEPS = {"steps": 60}


def exact(dual):
    """Distances in a linear network, inside the box."""
    slopes = WEIGHTS.T[LABELS][:, None] - WEIGHTS.T[None]
    steep = np.linalg.norm(slopes, dual, -1) + 1e-9
    logits = np.asarray(NETWORK(IMAGES))
    lead = logits[np.arange(24), LABELS, None] - logits + 9e9 * np.eye(4)[LABELS]
    return np.maximum((lead / steep).min(1), 0)


def bound(norm, names=None):
    return evaluation.minimum_norm_attacks(norm, attacks=names, **STEPS)


run = partial(evaluation.distances, NETWORK, IMAGES, LABELS)


@pytest.fixture(scope="module")
def found():
    return run(norm="l2", attacks=bound("l2"))


# AttackBench's optimality.


def golden_cases():
    return sorted(
        (name, area)
        for name in (
            "errors_close", "errors_far", "errors_failures", "equal", "no_errors_close",
            "no_errors_failures", "all_failed", "all_failed_no_errors", "l0_ties", "best_has_inf",
            "below_best",
        )
        for area in ("optimality", "optimality_exact_area")
    )  # fmt: skip


AREA = {"optimality": "trapezoid", "optimality_exact_area": "exact"}


@pytest.mark.parametrize(("name", "area"), golden_cases())
def test_optimality_is_attackbenchs(golden, name, area):
    data = golden("optimality_public")
    given = data[f"{name}.distances"], data[f"{name}.best"]
    expected = data[f"{name}.{area}"]
    measured = evaluation.optimality(*given, area=AREA[area])
    np.testing.assert_allclose(measured, expected, rtol=1e-12, atol=1e-12)
    stated = evaluation.optimality(*given, data[f"{name}.clean_accuracy"], area=AREA[area])
    np.testing.assert_allclose(stated, expected, rtol=1e-12, atol=1e-12)


def test_optimality_of_real_attacks(golden):
    data, distances = golden("optimality_public"), golden("minnorm_public_digits")
    real = [key.split(".")[1:] for key in data if key.startswith("real.")]
    by_norm = {}
    for net, norm, attack, _ in real:
        by_norm.setdefault((net, norm), {})[attack] = distances[f"{net}.{attack}.distance"]
    assert len(by_norm) == 8
    for net, norm, attack, area in real:
        best = np.min(list(by_norm[net, norm].values()), axis=0)
        value = evaluation.optimality(by_norm[net, norm][attack], best, area=AREA[area])
        np.testing.assert_allclose(value, data[f"real.{net}.{norm}.{attack}.{area}"], rtol=1e-12)


def test_optimality_without_room_is_no_number():
    zeros = np.zeros(3)
    assert np.isnan(evaluation.optimality(zeros, zeros))
    with pytest.raises(InputError, match=r"same points, got shapes \(3,\) and \(2,\)"):
        evaluation.optimality(zeros, zeros[:2])
    with pytest.raises(InputError, match="area must be"):
        evaluation.optimality(zeros, zeros, area="simpson")


# The ensemble.


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("linf", 1)])
def test_a_linear_network_gets_its_true_distances(found, norm, dual):
    result = found if norm == "l2" else run(norm=norm, attacks=bound(norm))
    truth = exact(dual)
    assert (truth == 0).sum() == 2
    assert (result.best >= truth * (1 - 1e-5)).all()
    np.testing.assert_allclose(result.best, truth, rtol=0.03)
    sizes = (result.adversarial_images - IMAGES).astype(np.float64).reshape(24, -1)
    order = {"l2": 2, "linf": np.inf}[norm]
    np.testing.assert_allclose(np.linalg.norm(sizes, order, axis=1), result.best, rtol=1e-12)
    # The images lie on the boundary: another program rounds their logits to the other side of it.
    logits = linear(WEIGHTS.astype(np.float64), result.adversarial_images.astype(np.float64))
    assert (result.predictions != LABELS).all()
    np.testing.assert_allclose(logits[np.arange(24), result.predictions], logits.max(1), atol=1e-6)
    assert all(check.passed for check in result.checks if "gradients" not in check.name)


def test_the_result_is_the_pointwise_best(found):
    every = np.array(list(found.distances.values()))
    assert list(found.distances) == ["ddn", "fmn", "superdeepfool"]
    np.testing.assert_array_equal(found.best, every.min(0))
    assert set(found.found_by[:2]) == {"clean"}
    for point, name in enumerate(found.found_by[2:], start=2):
        assert found.distances[name][point] == found.best[point]
    values = found.optimality("exact")
    assert set(values) == set(found.distances)
    assert max(values.values()) <= 1
    assert found.clean_accuracy.correct == 22


def test_one_run_has_the_accuracy_at_every_radius(found):
    radii = np.linspace(0, 1, 101)
    curve = found.robust_accuracy_at(radii)
    assert curve.shape == (101,)
    np.testing.assert_allclose(curve, [(found.best > eps).mean() for eps in radii])
    assert (np.diff(curve) <= 0).all()
    assert found.robust_accuracy_at(0.0) == found.clean_accuracy.value
    assert found.robust_accuracy_at(np.inf) == 0
    grid = np.linspace(0, found.largest, 200_001)
    under = np.trapezoid(found.robust_accuracy_at(grid), grid)
    np.testing.assert_allclose(found.area(), under, rtol=1e-3)
    np.testing.assert_allclose(found.area(0.1), np.minimum(found.best, 0.1).mean())
    np.testing.assert_allclose(found.area(), found.mean)
    assert found.median == np.median(found.best)
    with pytest.raises(InputError, match=r"eps must be at least 0, got -0\.1"):
        found.robust_accuracy_at([0.1, -0.1])


def test_passes_are_counted_per_point_that_is_attacked(found):
    passes = found.passes_per_point
    assert passes["ddn"] == passes["fmn"] == (60, 60)
    forwards, backwards = passes["superdeepfool"]
    # One outer step: two looks of it, DeepFool's, ten halvings; three classes each step.
    assert 12 < forwards < 30
    assert 4 <= backwards <= 20
    few = run(norm="linf", attacks=bound("linf", ["deepfool"]))
    forwards, backwards = few.passes_per_point["deepfool"]
    np.testing.assert_allclose(backwards, 3 * (forwards - 1))


def test_batches_change_nothing(found):
    small = run(norm="l2", attacks=bound("l2"), batch_size=8)
    for name, distance in found.distances.items():
        np.testing.assert_allclose(small.distances[name], distance, rtol=1e-4)
    np.testing.assert_allclose(small.adversarial_images, found.adversarial_images, atol=1e-4)


def test_finished_attacks_are_taken_up_and_another_evaluation_is_refused(found, tmp_path):
    seen = []
    again = partial(run, norm="l2", folder=tmp_path)
    again(attacks=bound("l2"))
    (tmp_path / "item_001.npz").unlink()
    same = again(attacks=bound("l2"), progress=lambda item, done, total: seen.append(item))
    assert {name.partition(" (")[0] for name in seen} == {"fmn"}
    for name, distance in found.distances.items():
        np.testing.assert_allclose(same.distances[name], distance, rtol=1e-6)
    assert same.cost["ddn"]["forwards"] == 22 * 60
    with pytest.raises(InputError, match="another evaluation: distances differ"):
        again(attacks=bound("l2", ["ddn"]))


def test_counts_of_changed_values_are_distances_too():
    result = run(norm="l0", attacks=bound("l0"))
    assert set(np.unique(result.best)) <= set(range(17))
    changed = (result.adversarial_images != IMAGES).sum((1, 2, 3))
    np.testing.assert_array_equal(changed, result.best)


def test_points_beyond_an_attacks_radius_are_not_found(found):
    near = {"ddn": attacks.DDN(threat=threats.l2(found.median), **STEPS)}
    result = run(norm="l2", attacks=near)
    inside = found.distances["ddn"] <= np.float32(found.median)
    np.testing.assert_array_equal(np.isfinite(result.best), inside)
    assert result.found_by[~inside].tolist() == [""] * (~inside).sum()
    np.testing.assert_array_equal(result.adversarial_images[~inside], IMAGES[~inside])
    assert np.isnan(result.optimality()["ddn"])
    (missing,) = [check for check in result.checks if not check.passed]
    assert (missing.name, missing.value) == (
        "an adversarial image for every point", (~inside).sum()
    )  # fmt: skip
    assert f"found for {inside.sum()} of 24" in result.text()


def test_a_network_that_is_always_wrong_has_no_distances():
    result = evaluation.distances(NETWORK, IMAGES[:4], (CLASSES[:4] + 1) % 4, attacks=bound("linf"))
    assert (result.best == 0).all()
    assert result.robust_accuracy_at(0.0) == 0
    assert result.passes_per_point["fmn"] == (0, 0)
    np.testing.assert_array_equal(result.adversarial_images, IMAGES[:4])


def test_claims_are_not_believed(monkeypatch):
    def liar(self, logits_fn, key, images, labels, targets=None):
        ones = jnp.ones(len(images))
        return attacks.Attacked(images, ones > 0, ones, distance=0 * ones)

    monkeypatch.setattr(attacks.DDN, "__call__", liar)
    result = run(norm="l2", attacks=bound("l2", ["ddn"]))
    assert np.isinf(result.best[2:]).all()
    assert result.unconfirmed == {"ddn": 22}
    monkeypatch.setattr(attacks.DDN, "__call__", lambda *a, **k: liar(*a)._replace(images=a[3] + 2))
    with pytest.raises(AttackResultError, match="ddn returned an image outside of the box"):
        run(norm="l2", attacks=bound("l2", ["ddn"]))


def test_results_are_saved_and_drawn(found, tmp_path):
    pytest.importorskip("matplotlib")
    paths = found.save(tmp_path)
    assert [path.name for path in paths] == ["distances.json", "distances.txt", "adversarial.npz"]
    told = json.loads(paths[0].read_text())
    np.testing.assert_allclose(told["distances"]["ddn"], found.distances["ddn"])
    assert sum(one["nearest"] for one in told["attacks"].values()) == 22
    assert told["attacks"]["fmn"]["settings"] == {"steps": 60, "escape": True}
    found.draw(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_ensembles_are_made_of_the_exports():
    assert evaluation.norms_of_attack("fmn") == ("linf", "l2", "l1", "l0")
    assert evaluation.norms_of_attack("sigma-zero") == ("l0",)
    made = evaluation.minimum_norm_attacks("l2", attacks=["fab", "fmn"], steps=7, gamma=0.1)
    assert (made["fab"].steps, made["fmn"].steps, made["fmn"].gamma) == (7, 7, 0.1)
    for norm in ("linf", "l2", "l1", "l0"):
        assert all(attack.distances for attack in evaluation.minimum_norm_attacks(norm).values())


@pytest.mark.slow
def test_the_benchmark_has_a_row_per_attack_and_one_for_all():
    rows = distances_table(norms=("l2",), points=10, steps=5)
    assert [row.attack for row in rows] == ["ddn", "fmn", "superdeepfool", "all"] * 2
    for row in rows:
        assert row.points == 10
        assert np.isnan(row.reference_median)
    assert all(rows[3].mean <= row.mean for row in rows[:3] if row.found == 10)


WRONG = {
    "name": (lambda: bound("l2", ["pgd"]), "attacks must be .* got 'pgd'"),
    "norm": (lambda: bound("l3"), "norm must be .* got 'l3'"),
    "norm of an attack": (lambda: bound("l1", ["ddn"]), "take norm 'l1'; ddn takes l2"),
    "none": (lambda: bound("l2", []), "different names, at least one"),
    "setting": (
        lambda: evaluation.minimum_norm_attacks("l2", attacks=["ddn"], overshoot=0.1),
        "overshoot must be settings of ddn",
    ),
    "value": (
        lambda: evaluation.minimum_norm_attacks("l2", attacks=["ddn"], steps=0),
        "steps must be an integer of at least 1",
    ),
    "no attack": (lambda: run(attacks={}), "attacks must be minimum-norm attacks"),
    "name of no attack": (
        lambda: run(norm="l2", attacks={"clean": attacks.DDN(threat=threats.l2(1.0))}),
        "must not be named 'clean'",
    ),
    "another kind": (
        lambda: run(attacks={"pgd": attacks.PGD(threat=threats.linf(0.1))}),
        "must look for the smallest perturbation",
    ),
    "another norm": (lambda: run(attacks=bound("l2")), "attacks must be of norm 'linf'; 'ddn'"),
    "many radii": (
        lambda: run(norm="l2", attacks={"a": attacks.DDN(threat=threats.l2(jnp.ones(24)))}),
        "must be one number for all images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        call()
