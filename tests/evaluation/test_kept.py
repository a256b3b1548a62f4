"""Folders of finished work: what is taken up is of the same evaluation, whole, and as it was."""

import errno
import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, evaluation, threats
from jaxrobust.inputs import InputError

IMAGES = np.random.default_rng(0).uniform(0.2, 0.8, (6, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)


def network(images):
    return images.reshape(len(images), -1) @ WEIGHTS


LABELS = np.asarray(network(IMAGES)).argmax(-1)
QUICK = {"norm": "linf", "eps": 0.02, "version": "custom", "attacks": ["apgd-ce"], "steps": 3}
L2 = threats.l2(1e9)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (attacks.FMN(threat=L2, steps=3), attacks.FMN(threat=L2, steps=3, gamma=0.5)),
        (attacks.FMN(threat=L2, steps=3), attacks.FMN(threat=L2, steps=3, step_size=0.5)),
        (attacks.FMN(threat=L2, steps=3), attacks.FMN(threat=threats.l2(0.01), steps=3)),
        (attacks.DDN(threat=L2, steps=3), attacks.DDN(threat=L2, steps=3, init_norm=0.1)),
        (attacks.FAB(threat=L2, steps=3), attacks.FAB(threat=L2, steps=3, eta=1.5)),
        (attacks.DeepFool(threat=L2, steps=3), attacks.DeepFool(threat=L2, steps=3, overshoot=0.5)),
        (attacks.PDPGD(threat=L2, steps=3), attacks.PDPGD(threat=L2, steps=3, dual_lr=0.5)),
    ],
)
def test_distances_under_other_settings_are_other_distances(first, other, tmp_path):
    """Reports name a few of an attack's settings; all of them decide what it finds."""
    options = {"norm": "l2", "batch_size": 8, "folder": tmp_path}
    evaluation.distances(network, IMAGES, LABELS, attacks={"a": first}, **options)
    with pytest.raises(InputError, match="distances"):
        evaluation.distances(network, IMAGES, LABELS, attacks={"a": other}, **options)
    ran = []
    options["progress"] = lambda item, *_: ran.append(item)
    evaluation.distances(network, IMAGES, LABELS, attacks={"a": first}, **options)
    assert not ran


def test_a_setting_that_only_a_newer_version_has_is_told(tmp_path):
    evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    path = tmp_path / "fingerprint.json"
    content = json.loads(path.read_text())
    content["settings"]["temperature"] = 2.0
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"temperature: 2\.0 there, None now"):
        evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)


@pytest.mark.parametrize("change", [{"identity": []}, {"settings": 3}, {"identity": None}])
def test_a_damaged_fingerprint_is_one_line(change, tmp_path):
    evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    path = tmp_path / "fingerprint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=r"another evaluation|damaged") as caught:
        evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fingerprint.json", "network.npz"])
@pytest.mark.parametrize("kind", ["truncated", "one bit flipped"])
def test_what_is_damaged_of_an_identity_is_named(name, kind, tmp_path):
    evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    content = bytearray((tmp_path / name).read_bytes())
    content[content.index(b"logits" if name == "network.npz" else b"identity")] ^= 1
    (tmp_path / name).write_bytes(content[: None if kind == "one bit flipped" else -9])
    with pytest.raises(InputError, match=f"{name} is damaged or of another version") as caught:
        evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)
    assert str(caught.value).endswith(f"or delete {tmp_path}")


def test_an_identity_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "network.npz")

    monkeypatch.setattr(np, "load", denied)  # root may read everything
    with pytest.raises(PermissionError, match=r"network\.npz"):
        evaluation.autoattack(network, IMAGES, LABELS, folder=tmp_path, **QUICK)


@pytest.mark.parametrize("kind", ["autoattack", "distances"])
def test_an_item_that_was_changed_is_made_again(kind, tmp_path):
    """Its name and hash say what it is of; the hash of its arrays says that it is still that."""
    if kind == "distances":
        fmn = attacks.FMN(threat=L2, steps=20)
        options = {"norm": "l2", "batch_size": 8, "folder": tmp_path, "attacks": {"fmn": fmn}}
    else:
        options = {**QUICK, "folder": tmp_path}
    run = getattr(evaluation, kind)
    before = run(network, IMAGES, LABELS, **options)
    (path,) = tmp_path.glob("item_*.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["distance"] = np.zeros_like(arrays["distance"])
    arrays["fooled"] = np.zeros_like(arrays["fooled"])
    np.savez(path, **arrays)
    ran = []
    after = run(network, IMAGES, LABELS, **options, progress=lambda item, *_: ran.append(item))
    assert ran
    if kind == "distances":
        np.testing.assert_array_equal(before.best, after.best)
    else:
        assert before.robust_accuracy == after.robust_accuracy


def test_a_masked_mask_is_refused():
    """NumPy drops the mask of an array that says which points are left."""
    robust = np.ma.masked_array(np.ones(6, bool), np.arange(6) < 3)
    with pytest.raises(InputError, match="robust must be an array without a mask"):
        evaluation.audit(network, IMAGES, LABELS, norm="linf", eps=0.02, robust=robust)


@pytest.mark.parametrize("given", [[attacks.PGD(threat=L2)], {"pgd": 3}, "pgd"])
def test_attacks_are_by_name(given):
    with pytest.raises(InputError, match="attacks must be attacks by name"):
        evaluation.evaluate(network, IMAGES, LABELS, attacks=given)
    with pytest.raises(InputError, match="attacks must be attacks by name"):
        evaluation.bracket(network, IMAGES, LABELS, threat=threats.linf(0.1), attacks=given)


def test_a_bracket_of_half_precision_images_is_of_one_network():
    """Bounds are computed in float32, so attacks and verdicts must be."""
    seen = []

    def watched(images):
        seen.append(images.dtype)
        return network(images)

    half = jnp.asarray(IMAGES, jnp.bfloat16)
    found = evaluation.bracket(watched, half, LABELS, threat=threats.linf(0.01))
    assert {str(dtype) for dtype in seen} == {"float32"}
    wide = np.asarray(half, np.float32)
    again = evaluation.bracket(network, wide, LABELS, threat=threats.linf(0.01))
    assert found.verdicts.tolist() == again.verdicts.tolist()


def test_a_masked_class_is_no_sign_of_a_randomised_network():
    """-inf over an infinite norm is NaN, which no threshold passes."""

    def masked(images):
        return jnp.where(jnp.arange(3)[None] == 2, -jnp.inf, network(images))

    labels = np.asarray(masked(IMAGES)).argmax(-1)
    report = evaluation.autoattack(masked, IMAGES, labels, **QUICK)
    (check,) = [check for check in report.checks if check.name == "deterministic model"]
    assert (check.passed, check.value) == (True, 0.0)


@pytest.mark.parametrize(
    ("kind", "options", "shown"),
    [
        ("autoattack", {"individual": "no"}, "individual must be True or False, got 'no'"),
        ("autoattack", {"stochastic": "no"}, "stochastic must be True or False"),
        ("autoattack", {"folder": 3}, "folder must be a path or None, got 3"),
        ("evaluate", {"keep_images": "no"}, "keep_images must be True or False"),
        ("bracket", {"attack_certified": "no"}, "attack_certified must be True or False"),
        ("bracket", {"cheap": "ibp"}, "cheap must be a tuple of methods, got 'ibp'"),
        ("bracket", {"costly": None}, "costly must be a tuple of methods"),
    ],
)
def test_a_word_is_no_flag(kind, options, shown):
    """The word "no" is true, and would switch on what it refuses."""
    given = {"autoattack": QUICK, "evaluate": {"attacks": {}}}
    settings = given.get(kind, {"threat": threats.linf(0.1)})
    with pytest.raises(InputError, match=shown):
        getattr(evaluation, kind)(network, IMAGES, LABELS, **settings | options)
