"""The audit: defences that hide gradients are found out, honest networks are not accused."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from benchmarks.audit_table import audit_table, falls_to_pgd
from benchmarks.defences import defences, digits_images
from jaxrobust import attacks, evaluation, threats
from jaxrobust.evaluation import AttackResultError
from jaxrobust.evaluation._audit_case import Case
from jaxrobust.evaluation._audit_stages import deviation, smoothed, stages
from jaxrobust.inputs import InputError

IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (40, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
EPS = 0.025
QUICK: dict[str, Any] = {"eps": EPS, "steps": 10, "queries": 10, "rounds": 1}


def linear(images):
    return (images.reshape(len(images), -1) - 0.5) @ WEIGHTS


def coarse(images):
    return linear(jnp.round(images * 32) / 32)


LABELS = np.asarray(linear(IMAGES)).argmax(-1)


def exact():
    """The points that a linear network withstands: inside the box its margins are known."""
    lead = np.asarray(linear(IMAGES))
    lead = lead[np.arange(40), LABELS, None] - lead
    reach = EPS * np.abs(WEIGHTS[:, LABELS].T[:, :, None] - WEIGHTS[None]).sum(1)
    reach[np.arange(40), LABELS] = -1
    return (lead > reach).all(1)


def test_an_honest_network_is_not_accused_and_its_true_accuracy_is_found():
    truth = exact()
    assert 5 < truth.sum() < 35
    report = evaluation.audit(linear, IMAGES, LABELS, robust=truth, **QUICK)
    assert report.trusted
    assert report.settled
    assert report.verdict == f"trusted: nothing fell of {truth.sum()} points"
    assert report.findings == ()
    assert report.suspicions == []
    assert report.robust_accuracy.correct == truth.sum()
    np.testing.assert_array_equal(report.adversarial_images, IMAGES)
    weak = evaluation.audit(linear, IMAGES, LABELS, robust=np.ones(40, bool), **QUICK)
    np.testing.assert_array_equal(list(weak.masks.values())[-1], truth)
    assert {name for name, count in weak.fell.items() if count} == {"multi-targeted"}
    assert weak.verdict == (
        f"too high: {40 - truth.sum()} of 40 points fell to more steps, targets and restarts, "
        "none around the network's own gradients; points still fell in the last round"
    )
    assert not weak.masked.any()


def test_a_quantiser_is_found_out_and_every_fallen_point_is_a_proof():
    left = np.asarray(coarse(IMAGES)).argmax(-1) == LABELS
    told = []
    report = evaluation.audit(
        coarse, IMAGES, LABELS, robust=left, progress=lambda *words: told.append(words), **QUICK
    )
    assert report.fell["multi-targeted"] < report.fell["straight-through twin"]
    fallen = left & ~list(report.masks.values())[-1]
    assert fallen.sum() == sum(report.fell.values()) > 5
    moved = report.adversarial_images[fallen]
    assert (np.asarray(coarse(moved)).argmax(-1) != LABELS[fallen]).all()
    assert np.abs(moved - IMAGES[fallen]).max() <= EPS + 1e-6
    assert not report.trusted
    assert report.verdict.startswith(f"not to be trusted: {fallen.sum()} of {left.sum()} points")
    np.testing.assert_array_equal(report.masked, fallen)
    (stop,) = report.findings
    assert stop.primitive == "round"
    assert "test_audit.py:" in stop.source
    assert report.probe.dead.all()
    assert any("the margin has no gradient" in words for words in report.suspicions)
    text = report.text()
    assert report.verdict in text
    assert len(text.splitlines()) < 40
    assert json.loads(json.dumps(report.to_dict()))["fell"] == report.fell
    assert told[-1] == ("random search", 1, 1)


def test_verdicts_depend_on_neither_batch_size_nor_order_nor_the_other_points():
    left = np.asarray(coarse(IMAGES)).argmax(-1) == LABELS
    whole = evaluation.audit(coarse, IMAGES, LABELS, robust=left, **QUICK)
    parts = evaluation.audit(coarse, IMAGES, LABELS, robust=left, batch_size=8, **QUICK)
    assert list(whole.masks) == list(parts.masks)
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(mask, parts.masks[name], err_msg=name)
    np.testing.assert_array_equal(whole.adversarial_images, parts.adversarial_images)
    few = evaluation.audit(coarse, IMAGES, LABELS, robust=left & (np.arange(40) < 20), **QUICK)
    np.testing.assert_array_equal(
        list(few.masks.values())[-1][:20], list(whole.masks.values())[-1][:20]
    )


def test_without_a_mask_autoattacks_gradient_attacks_run_first():
    report = evaluation.audit(linear, IMAGES, LABELS, **QUICK)
    options: dict[str, Any] = {"version": "custom", "attacks": ["apgd-ce", "apgd-t"], "steps": 10}
    first = evaluation.autoattack(linear, IMAGES, LABELS, norm="linf", eps=EPS, **options)
    np.testing.assert_array_equal(report.masks["before"], first.masks["apgd-t"])
    np.testing.assert_array_equal(report.masks["before"], exact())
    assert report.trusted


def test_nothing_falls_at_radius_0_and_wrong_points_are_never_left():
    classes = np.asarray(coarse(IMAGES)).argmax(-1)
    labels = np.where(np.arange(40) < 10, (classes + 1) % 4, classes)
    options = QUICK | {"eps": 0.0, "steps": 2}
    report = evaluation.audit(coarse, IMAGES, labels, robust=np.ones(40, bool), **options)
    assert report.trusted
    assert not report.masks["before"][:10].any()
    none = evaluation.audit(coarse, IMAGES, LABELS, robust=np.zeros(40, bool), **options)
    assert none.verdict == "nothing to trust: another attack has left no point"
    assert none.robust_accuracy.value == 0


class Stopped(Exception):
    pass


def stopping(name):
    """Told of progress; stops the audit when the stage begins."""

    def told(stage, done, total):
        if stage == name:
            raise Stopped

    return told


def test_an_interrupted_audit_continues_and_one_with_more_rounds_goes_on(tmp_path, monkeypatch):
    left = np.asarray(coarse(IMAGES)).argmax(-1) == LABELS
    settings = {"robust": left, **QUICK, "rounds": 2}
    whole = evaluation.audit(coarse, IMAGES, LABELS, **settings)
    kept = {"folder": tmp_path / "items", **settings}
    with pytest.raises(Stopped):
        evaluation.audit(coarse, IMAGES, LABELS, progress=stopping("straight-through twin"), **kept)
    finished = len(list(kept["folder"].glob("item_*.npz")))
    assert finished
    runs, run = [], Case._confirmed
    monkeypatch.setattr(Case, "_confirmed", lambda *a: runs.append(a[2]) or run(*a))
    first = evaluation.audit(coarse, IMAGES, LABELS, **{**kept, "rounds": 1})
    assert "straight-through twin" in runs
    assert "multi-targeted" not in runs
    every = evaluation.audit(coarse, IMAGES, LABELS, **kept)
    assert all(name in first.masks for name in whole.masks if "round 2" not in name)
    assert every.fell == whole.fell
    assert every.masks.keys() == whole.masks.keys()
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(every.masks[name], mask)
    np.testing.assert_array_equal(every.adversarial_images, whole.adversarial_images)
    runs.clear()
    evaluation.audit(coarse, IMAGES, LABELS, **kept)
    assert runs == []


def test_a_folder_is_a_path():
    with pytest.raises(InputError, match="folder"):
        evaluation.audit(linear, IMAGES, LABELS, folder=3, **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 2 * EPS}, "eps"),
        ({"robust": np.arange(40) > 0}, "robust"),
        ({"others": (linear,)}, "others"),
        ({"network": lambda x: linear(1.001 * x)}, "model"),
        ({"images": IMAGES[::-1].copy()}, "images"),
    ],
)
def test_the_folder_of_another_audit_is_refused(tmp_path, change, message):
    given = {"network": linear, "images": IMAGES, "robust": np.ones(40, bool), **QUICK}

    def run(network, images, **settings):
        evaluation.audit(network, images, LABELS, folder=tmp_path / "items", **settings)

    run(**given)
    with pytest.raises(InputError, match=f"holds another evaluation: .*{message}"):
        run(**{**given, **change})


def test_transfer_uses_the_other_networks_gradients():
    def masked(images):
        """Exactly the linear network; no gradient passes the bits of a number."""
        bits = jax.lax.bitcast_convert_type(images, jnp.int32)
        return linear(jax.lax.bitcast_convert_type(bits, jnp.float32))

    report = evaluation.audit(
        masked, IMAGES, LABELS, robust=np.ones(40, bool), others=(linear,), **QUICK
    )
    np.testing.assert_array_equal(list(report.masks.values())[-1], exact())
    assert report.fell["transfer from network 1"] > 5


def test_a_network_that_draws_at_random_is_told_and_judged_by_most_of_its_passes():
    draws = np.random.default_rng(0)

    def noisy(images):
        seed = io_callback(
            lambda: draws.integers(0, 2**31 - 1, dtype=np.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
        noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), seed), images.shape)
        return linear(images + 0.02 * noise)

    report = evaluation.audit(noisy, IMAGES, LABELS, robust=np.ones(40, bool), **QUICK)
    assert report.random
    assert "the same images get different logits" in report.suspicions
    fallen = report.masks["before"] & ~list(report.masks.values())[-1]
    assert fallen.sum() > 5
    # In expectation, which is the linear network itself, nearly all of them are wrong.
    moved = np.asarray(linear(report.adversarial_images[fallen])).argmax(-1)
    assert (moved != LABELS[fallen]).mean() > 0.7


def test_a_smoothed_copy_is_the_mean_under_noise():
    fn = smoothed(linear, jax.random.key(0), (4, 4, 1), 0.05)
    np.testing.assert_allclose(fn(IMAGES), linear(IMAGES), atol=0.5)
    assert not np.allclose(fn(IMAGES), linear(IMAGES), atol=1e-3)
    size = 16
    noise = np.random.default_rng(0).normal(size=(1000, size))
    for norm, order in (("linf", np.inf), ("l2", 2), ("l1", 1)):
        sizes = np.linalg.norm(deviation(norm, 0.1, (4, 4, 1)) * noise, order, axis=1)
        assert 0.03 < np.median(sizes) < 0.15, norm


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_every_norm_has_its_attacks(norm):
    eps = {"l2": 0.15, "l1": 0.6}[norm]
    report = evaluation.audit(
        coarse, IMAGES, LABELS, norm=norm, **QUICK | {"eps": eps}, robust=np.ones(40, bool)
    )
    assert report.fell["straight-through twin"] + report.fell["multi-targeted"] > 3
    planned = stages(
        linear, norm=norm, eps=eps, shape=(4, 4, 1), classes=4, stopped=False, others=(),
        seed=0, steps=3, queries=3,
    )  # fmt: skip
    assert {threats.norm_of(stage.attack.threat) for stage in planned} == {norm}
    assert [stage.targets for stage in planned] == [3, 3, 0]


def test_the_probability_margin_is_attacked_in_linf():
    planned = stages(
        linear, norm="linf", eps=EPS, shape=(4, 4, 1), classes=4, stopped=False, others=(),
        seed=0, steps=3, queries=3,
    )  # fmt: skip
    assert [stage.name for stage in planned][:2] == ["multi-targeted", "PMA"]
    assert planned[1] == (
        "PMA",
        "more",
        attacks.PMA(threat=planned[1].attack.threat, steps=3),
        linear,
        0,
    )


def test_an_attack_that_leaves_the_ball_is_an_error(monkeypatch):
    def far(self, logits_fn, key, images, labels, targets=None):
        return attacks.Attacked(images * 0, jnp.ones(len(images), bool), jnp.zeros(len(images)))

    monkeypatch.setattr(attacks.APGD, "__call__", far)
    with pytest.raises(AttackResultError, match="multi-targeted returned an image outside"):
        evaluation.audit(linear, IMAGES, LABELS, robust=exact(), **QUICK)


def test_what_is_no_mask_or_network_is_refused():
    for robust, said in ((np.ones(40), "float64"), (np.ones(3, bool), r"\(3,\)")):
        with pytest.raises(
            InputError, match=rf"robust must be bool \[n\], here \[40\], got .*{said}"
        ):
            evaluation.audit(linear, IMAGES, LABELS, robust=robust, **QUICK)
    with pytest.raises(InputError, match="others must be networks, got 3 at place 0"):
        evaluation.audit(linear, IMAGES, LABELS, others=(3,), **QUICK)


# Proof cases: what gradient attacks report, and what is left of it.


@pytest.fixture(scope="module")
def proofs():
    return {defence.name: defence for defence in defences()}


def audited(defence, rounds, queries=50):
    """The audit of what a short AutoAttack leaves."""
    x, y = (values[: defence.points] for values in digits_images())
    options: dict[str, Any] = {"version": "custom", "attacks": defence.attacks, "queries": 300}
    found = evaluation.autoattack(
        defence.network, x, y, norm="linf", eps=defence.eps, steps=30, **options
    )
    mask = list(found.masks.values())[-1]
    settings: dict[str, Any] = {"robust": mask, "steps": 30, "queries": queries, "rounds": rounds}
    report = evaluation.audit(defence.network, x, y, eps=defence.eps, **settings)
    print(
        f"{defence.name}: {found.robust_accuracy} before the audit, {report.robust_accuracy} after"
    )
    print(report.text())
    return report


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "adversarially trained",
        "not adversarially trained",
        "cosine transform, rounded (as in JPEG)",
        "thermometer code",
        "logits times 2^20",
        "Adaptive Smoothing, detector without gradients",
        "MixedNUTS",
    ],
)
def test_proof_cases(proofs, name):
    report = audited(proofs[name], rounds=2, queries=100)
    if proofs[name].least:
        assert sum(report.fell.values()) >= proofs[name].least
        assert report.verdict.startswith("not to be trusted")
    else:
        assert report.trusted, report.verdict
    if name == "adversarially trained":
        assert report.findings == ()
        assert report.suspicions == []


@pytest.mark.slow
def test_a_network_is_no_more_robust_by_mean_sparse(proofs):
    """Trained with normalisation; then 0.2 standard deviations around each mean are its mean."""
    base = audited(proofs["the same network without MeanSparse"], rounds=2)
    sparsified = audited(proofs["MeanSparse, t = 0.2"], rounds=2)
    assert not base.masked.any(), "the honest network is not accused"
    assert base.verdict.startswith(("trusted", "too high"))
    assert sparsified.masked.any()
    assert sparsified.robust_accuracy.correct < sparsified.before.correct
    assert sparsified.robust_accuracy.correct < base.robust_accuracy.correct, "than without it"


@pytest.mark.slow
def test_winners_that_take_all_lose(proofs):
    report = audited(proofs["k-winners-take-all"], rounds=2)
    assert sum(report.fell.values()) >= proofs["k-winners-take-all"].least
    assert report.verdict.startswith(("too high", "not to be trusted"))
    assert any("top_k" in str(stop) for stop in report.findings)


@pytest.mark.slow
def test_random_resizing_falls_to_gradients_that_are_averaged(proofs):
    defence = proofs["random resizing"]
    x, y = (values[: defence.points] for values in digits_images())
    left = ~falls_to_pgd(defence, x, y, steps=30)
    report = evaluation.audit(
        defence.network, x, y, eps=defence.eps, robust=left, steps=30, queries=50, rounds=1
    )
    print(report.text())
    assert report.random
    assert sum(report.fell.values()) >= defence.least
    assert report.robust_accuracy.value < report.before.value


@pytest.mark.slow
def test_the_table_of_audits_counts_what_each_attack_leaves():
    (row,) = audit_table(only=["MixedNUTS"], points=6, steps=5, queries=5, rounds=1)
    assert row.attack == "AutoAttack"
    assert row.points == 6
    assert 0 <= row.after <= row.before <= row.clean <= 6
    assert row.before - row.after == sum(row.fell.values())
    assert row.verdict in ("trusted", "too high", "not to be trusted")
    with pytest.raises(ValueError, match="only must name defences .*, got 'unknown'"):
        audit_table(only=["unknown"])
