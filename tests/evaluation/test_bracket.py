"""Certified, falsified or open: every point of a bracket, and the check between its two sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, bounds, evaluation, threats
from jaxrobust.bounds import _relu
from jaxrobust.bounds._rule import RULES
from jaxrobust.evaluation._store import made_once
from jaxrobust.inputs import InputError

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(24, 4, 4, 1)).astype(np.float32)
W = jnp.asarray(RNG.normal(size=(16, 20)), jnp.float32)
V = jnp.asarray(RNG.normal(size=(20, 3)), jnp.float32)


def logits_fn(x):
    return jax.nn.relu((x.reshape(len(x), -1) - 0.5) @ W) @ V


Y = np.array(logits_fn(X).argmax(-1))
Y[:3] = (Y[:3] + 1) % 3  # three are wrong as they are
SMALL = {"batch_size": 24, "bound_batch_size": 24}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_gets_the_verdict_that_holds(norm):
    threat = getattr(threats, norm)({"linf": 0.05, "l2": 0.15}[norm])
    found = evaluation.bracket(logits_fn, X, Y, threat=threat, **SMALL)
    assert found.falsified[:3].all()
    assert set(found.decided_by[:3]) == {"clean"}
    assert not (found.certified & found.falsified).any()
    assert found.certified.any()
    assert found.falsified[3:].any()
    best = np.asarray(bounds.margins(logits_fn, X, Y, threat=threat, method="alpha-crown"))
    proved = bounds.verified(best)
    assert (proved >= found.certified).all()
    clearly = np.sort(best, -1)[:, 1] > 1e-3 * (1 + np.abs(best).max(-1))
    assert found.certified[clearly & ~found.falsified].all()
    assert found.lower.correct == found.certified.sum()
    assert found.upper.correct == 24 - found.falsified.sum()
    assert sum(found.counts.values()) == 24
    assert set(found.verdicts) <= {"certified", "falsified", "open"}
    assert f"open       {found.open.sum()} of 24" in found.text()
    assert found.figures()["certified_accuracy"]["correct"] == found.certified.sum()


def test_batch_sizes_and_order_change_no_verdict():
    threat = threats.linf(0.05)
    whole = evaluation.bracket(logits_fn, X, Y, threat=threat, **SMALL)
    parts = evaluation.bracket(logits_fn, X, Y, threat=threat, batch_size=8, bound_batch_size=8)
    np.testing.assert_array_equal(whole.verdicts, parts.verdicts)


class Stopped(Exception):
    pass


def stopping(name):
    """Told of progress; stops the bracket when a batch of the stage is done."""

    def told(stage, examples):
        if stage == name:
            raise Stopped

    return told


def test_an_interrupted_bracket_continues(tmp_path):
    threat = threats.linf(0.05)
    whole = evaluation.bracket(logits_fn, X, Y, threat=threat, **SMALL)
    kept = {"threat": threat, "folder": tmp_path / "items", **SMALL}
    with pytest.raises(Stopped):
        evaluation.bracket(logits_fn, X, Y, advance=stopping("margin_pgd"), **kept)
    assert len(list(kept["folder"].glob("item_*.npz"))) == 3  # two bounds, one attack
    run = []
    again = evaluation.bracket(logits_fn, X, Y, advance=lambda *told: run.append(told[0]), **kept)
    assert set(run) == {"clean", "margin_pgd", "crown", "alpha-crown"}
    for found in (again, evaluation.bracket(logits_fn, X, Y, advance=stopping("apgd"), **kept)):
        np.testing.assert_array_equal(found.verdicts, whole.verdicts)
        np.testing.assert_array_equal(found.decided_by, whole.decided_by)
        np.testing.assert_array_equal(found.margins, whole.margins)
        assert found.seconds.keys() == whole.seconds.keys()


def test_a_kept_stage_still_has_to_agree_with_the_others(tmp_path, monkeypatch):
    """Of other points, under another slack, it is made again; the bounds are checked as before."""
    kept = {"threat": threats.linf(0.05), "folder": tmp_path / "items", **SMALL}
    evaluation.bracket(logits_fn, X, Y, **kept)
    strict = evaluation.bracket(logits_fn, X, Y, slack=10.0, **kept)
    assert not strict.certified.any()
    monkeypatch.setattr("jaxrobust.evaluation._bracket.made_once", lambda *of: lie(*of))

    def lie(store, number, rows, make):
        return made_once(store, number, rows, make) | {"fooled": np.ones(len(rows), bool)}

    with pytest.raises(evaluation.ContradictionError, match="apgd fools the network on"):
        evaluation.bracket(logits_fn, X, Y, **kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threat": threats.linf(0.06)}, "bracket, eps"),
        ({"network": lambda x: 2 * logits_fn(x)}, "model"),
        ({"images": X[::-1].copy()}, "images"),
        ({"costly": ("crown",)}, "costly"),
        ({"seed": 1}, "seed"),
        ({"attacks": {"apgd": attacks.APGD(threat=threats.linf(0.05), steps=4)}}, "attacks"),
    ],
)
def test_the_folder_of_another_bracket_is_refused(tmp_path, change, message):
    given = {"network": logits_fn, "images": X, "threat": threats.linf(0.05), **SMALL}
    given["attacks"] = {"apgd": attacks.APGD(threat=threats.linf(0.05), steps=3)}

    def run(network, images, **settings):
        evaluation.bracket(network, images, Y, folder=tmp_path / "items", **settings)

    run(**given)
    with pytest.raises(InputError, match=f"holds another evaluation: .*{message}"):
        run(**{**given, **change})


def test_certificates_of_another_version_are_not_taken_up(tmp_path, monkeypatch):
    kept = {"threat": threats.linf(0.05), "folder": tmp_path / "items", "costly": (), **SMALL}
    evaluation.bracket(logits_fn, X, Y, **kept)
    monkeypatch.setattr("jaxrobust.__version__", "9.9")
    with pytest.raises(InputError, match="holds another evaluation: rules differ"):
        evaluation.bracket(logits_fn, X, Y, **kept)


def test_a_folder_is_a_path():
    with pytest.raises(InputError, match="folder must be a path or None, got 3"):
        evaluation.bracket(logits_fn, X, Y, threat=threats.linf(0.05), folder=3)


def test_a_radius_of_zero_leaves_nothing_open():
    found = evaluation.bracket(logits_fn, X, Y, threat=threats.linf(0.0), **SMALL)
    assert found.lower.correct == found.upper.correct == 21
    assert set(found.decided_by[3:]) == {"ibp"}


def test_a_wrong_rule_is_found_out(monkeypatch):
    right = _relu.MAX_WITH_CONSTANT

    def too_tight(node, interval):
        clean = node.apply((interval.lower + interval.upper) / 2)
        return bounds.Interval(clean, clean)

    rule = bounds.Rule(interval=too_tight, relax=right.relax, elementwise=True)
    monkeypatch.setitem(RULES, "max", rule)
    options = {"threat": threats.linf(0.1), "costly": (), "cheap": ("ibp",)}
    with pytest.raises(evaluation.ContradictionError, match="certified by ibp"):
        evaluation.bracket(logits_fn, X, Y, **options, **SMALL)
    found = evaluation.bracket(logits_fn, X, Y, attack_certified=False, **options, **SMALL)
    assert found.certified.sum() >= 15


def test_an_attack_that_leaves_the_ball_is_found_out():
    def far(logits_fn, keys, images, labels):
        from jaxrobust.attacks import Attacked

        nothing = jnp.zeros(len(images), bool)
        return Attacked(1 - images, nothing, jnp.zeros(len(images)))

    with pytest.raises(evaluation.AttackResultError, match="outside its set"):
        evaluation.bracket(
            logits_fn, X, Y, threat=threats.linf(0.05), attacks={"far": far}, **SMALL
        )


def test_a_large_slack_proves_nothing():
    found = evaluation.bracket(logits_fn, X, Y, threat=threats.linf(0.01), slack=10.0, **SMALL)
    assert not found.certified.any()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"threat": threats.spatial(30, 3)}, "threat must be the ball"),
        ({"threat": threats.linf(jnp.full(24, 0.1))}, "one radius for all points"),
        ({"threat": threats.linf(0.1), "cheap": ("fast",)}, "cheap must be 'ibp'"),
        ({"threat": threats.linf(0.1), "costly": ("slow",)}, "costly must be 'ibp'"),
        (
            {"threat": threats.linf(0.1), "attacks": {"ibp": lambda *batch: None}},
            "names of their own",
        ),
        ({"threat": threats.linf(0.1), "slack": -1.0}, "slack must be"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, shown):
    with pytest.raises(InputError, match=shown):
        evaluation.bracket(logits_fn, X, Y, **options)


def test_a_network_without_rules_is_refused():
    with pytest.raises(bounds.UnsupportedPrimitive, match="sort"):
        evaluation.bracket(
            lambda x: jnp.sort(logits_fn(x)), X, Y, threat=threats.linf(0.1), **SMALL
        )
