"""AutoAttack: the reference's verdicts, invariances, resumption after a kill, checks, errors."""

import errno
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust import evaluation, threats
from jaxrobust.evaluation import protocol
from jaxrobust.evaluation._checks import AttackResultError, square_check, verify_images
from jaxrobust.evaluation._identity import Identity
from jaxrobust.evaluation._store import ITEM, Store
from tests.xla import flags

ROOT = pathlib.Path(__file__).parents[2]
slow = partial(pytest.param, marks=pytest.mark.slow)
QUICK = {"norm": "linf", "eps": 0.1, "steps": 8, "queries": 40}


def conv_net(params, x):
    """The network of the digits models: SAME convolutions, the second with stride 2."""
    for layer, stride in (("conv1", 1), ("conv2", 2)):
        x = jax.lax.conv_general_dilated(
            x,
            params[f"{layer}_kernel"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + params[f"{layer}_bias"][None, None, None])
    return x.reshape(len(x), -1) @ params["dense_kernel"] + params["dense_bias"][None]


@pytest.fixture(scope="module")
def robust():
    """The robust digits model as a callable pytree, its images and labels."""
    with np.load(ROOT / "tests/golden/digits_robust.npz") as stored:
        data = dict(stored)
    params = {k: jnp.asarray(v) for k, v in data.items() if k.endswith(("kernel", "bias"))}
    fn = jax.tree_util.Partial(conv_net, params)
    np.testing.assert_allclose(fn(data["x"]), data["logits"], atol=1e-4)
    return fn, data["x"], data["y"]


@pytest.fixture(scope="module")
def reference():
    with np.load(ROOT / "tests/golden/autoattack_digits.npz") as stored:
        return dict(stored)


@pytest.mark.slow
def test_the_standard_evaluation_is_the_references(robust, reference):
    """Every count inside its band; here 120 of the 360 points, to keep the suite quick."""
    fn, x, y = robust
    rows = slice(0, 120)
    report = evaluation.autoattack(fn, x[rows], y[rows], norm="linf", eps=0.1, individual=True)
    assert not report.deviations
    stored = {
        k.split("/", 1)[1]: v[rows]
        for k, v in reference.items()
        if k.startswith("digits_robust_Linf/")
    }
    np.testing.assert_array_equal(report.masks["clean"], stored["clean"])
    ensemble, expected = report.masks["square"], stored["cascade/square"]
    assert abs(int(ensemble.sum()) - int(expected.sum())) <= 1
    assert (ensemble != expected).sum() <= 2
    bands = {"apgd-ce": 3, "apgd-t": 1, "fab-t": 1, "square": 4}
    for name, band in bands.items():
        found = int(report.individual_masks[name].sum())
        assert abs(found - int(stored[f"individual/{name}"].sum())) <= band, name
    assert (report.individual_masks["fab-t"] != stored["individual/fab-t"]).sum() <= 1


@pytest.fixture(scope="module")
def quick(robust):
    fn, x, y = robust
    return evaluation.autoattack(fn, x[:60], y[:60], **QUICK)


def test_the_report_agrees_with_itself(robust, quick):
    fn, x, y = robust
    wrong = np.asarray(fn(quick.adversarial_images).argmax(-1)) != y[:60]
    np.testing.assert_array_equal(wrong, ~quick.masks["square"])
    np.testing.assert_array_equal(quick.predictions != y[:60], wrong)
    delta = np.abs(quick.adversarial_images - x[:60]).max((1, 2, 3))
    assert delta.max() <= 0.1 + 1e-6
    assert (delta[quick.masks["square"]] == 0).all()
    names = list(quick.masks)
    assert names == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    for before, after in itertools.pairwise(names):
        assert (quick.masks[after] <= quick.masks[before]).all()
    assert quick.robust_accuracy.correct == quick.masks["square"].sum() < quick.masks["clean"].sum()


@pytest.mark.slow
def test_nothing_depends_on_batch_size_order_or_devices(robust, quick):
    fn, x, y = robust
    small = evaluation.autoattack(fn, x[:60], y[:60], batch_size=16, **QUICK)
    for name in quick.masks:
        np.testing.assert_array_equal(small.masks[name], quick.masks[name], err_msg=name)
    # The suite has eight virtual devices; one device in a process of its own.
    code = (
        "import sys; sys.path.insert(0, '.'); import numpy as np, jax, jax.numpy as jnp\n"
        "from tests.evaluation.test_autoattack import conv_net, QUICK\n"
        "from jaxrobust import evaluation\n"
        "d = dict(np.load('tests/golden/digits_robust.npz'))\n"
        "p = {k: jnp.asarray(v) for k, v in d.items() if k.endswith(('kernel', 'bias'))}\n"
        "fn = jax.tree_util.Partial(conv_net, p)\n"
        "r = evaluation.autoattack(fn, d['x'][:60], d['y'][:60], **QUICK)\n"
        "print(jax.device_count(), ''.join(str(int(v)) for v in r.masks['square']))\n"
    )
    environment = os.environ | {"XLA_FLAGS": flags(1), "JAX_PLATFORMS": "cpu"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert out[0] == "1"
    assert out[1] == "".join(str(int(v)) for v in quick.masks["square"])


def test_individual_runs_intersect_to_the_ensemble(robust):
    fn, x, y = robust
    report = evaluation.autoattack(fn, x[:40], y[:40], individual=True, **QUICK)
    together = np.logical_and.reduce(list(report.individual_masks.values()))
    np.testing.assert_array_equal(report.masks["square"], together)


def test_a_new_eps_compiles_nothing(robust, compilations):
    fn, x, y = robust
    evaluation.autoattack(fn, x[:30], y[:30], **QUICK)
    compilations.clear()
    other = jax.tree_util.Partial(conv_net, jax.tree.map(lambda a: a * 1.01, fn.args[0]))
    found = evaluation.autoattack(other, x[:30], y[:30], **QUICK | {"eps": 0.01})
    assert not [name for name in compilations if re.search("apgd|fab|square", name)]
    assert found.robust_accuracy.correct >= 25


def test_a_finished_item_is_not_run_again_and_another_evaluation_is_refused(
    robust, quick, tmp_path
):
    fn, x, y = robust
    first = evaluation.autoattack(fn, x[:60], y[:60], folder=tmp_path, **QUICK)
    (tmp_path / "item_012.npz").unlink()
    (tmp_path / "item_003.npz").write_bytes(b"cut")
    ran = []
    again = evaluation.autoattack(
        fn, x[:60], y[:60], folder=tmp_path, progress=lambda item, *_: ran.append(item), **QUICK
    )
    assert all(re.search(r" \(\d+ of \d+\)$", name) for name in ran), ran
    assert {name.partition(" (")[0] for name in ran} == {"apgd-t, target 3", "fab-t, target 3"}
    for report in (first, again):
        for name in quick.masks:
            np.testing.assert_array_equal(report.masks[name], quick.masks[name])
        np.testing.assert_array_equal(report.adversarial_images, quick.adversarial_images)
    for change, field in (
        ({"eps": 0.2}, "eps"),
        ({"seed": 1}, "seed"),
        ({"norm": "l2"}, "norm"),
        ({"version": "plus"}, "attacks, version"),
    ):
        message = f"holds another evaluation: {field} differ .*; choose another folder, or delete"
        with pytest.raises(ValueError, match=message):
            evaluation.autoattack(fn, x[:60], y[:60], folder=tmp_path, **QUICK | change)
    with pytest.raises(ValueError, match="images, labels, model differ|images, labels differ"):
        evaluation.autoattack(fn, x[1:61], y[1:61], folder=tmp_path, **QUICK)
    other = jax.tree_util.Partial(conv_net, jax.tree.map(lambda a: a * 2, fn.args[0]))
    with pytest.raises(ValueError, match="model differ"):
        evaluation.autoattack(other, x[:60], y[:60], folder=tmp_path, **QUICK)


@pytest.mark.multiprocess
def test_kill_9_loses_at_most_one_work_item(robust, quick, tmp_path):
    code = (
        "import sys; sys.path.insert(0, '.'); import numpy as np, jax, jax.numpy as jnp\n"
        "from tests.evaluation.test_autoattack import conv_net, QUICK\n"
        "from jaxrobust import evaluation\n"
        "d = dict(np.load('tests/golden/digits_robust.npz'))\n"
        "p = {k: jnp.asarray(v) for k, v in d.items() if k.endswith(('kernel', 'bias'))}\n"
        "fn = jax.tree_util.Partial(conv_net, p)\n"
        f"evaluation.autoattack(fn, d['x'][:60], d['y'][:60], folder={str(tmp_path)!r}, **QUICK)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.time() + 240
    while len(list(tmp_path.glob("item_*.npz"))) < 4 and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = sorted(tmp_path.glob("item_*.npz"))
    assert len(finished) >= 4
    times = {f: f.stat().st_mtime_ns for f in finished}
    fn, x, y = robust
    report = evaluation.autoattack(fn, x[:60], y[:60], folder=tmp_path, **QUICK)
    assert {f: f.stat().st_mtime_ns for f in finished} == times, "finished items were run again"
    np.testing.assert_array_equal(report.masks["square"], quick.masks["square"])


def test_report_files(quick, tmp_path):
    files = quick.save(tmp_path)
    assert all(f.stat().st_size > 0 for f in files)
    stored = json.loads((tmp_path / "report.json").read_text())
    assert stored["protocol"]["eps"] == 0.1
    assert stored["protocol"]["eps_float32"] == float(np.float32(0.1))
    assert not stored["protocol"]["standard_autoattack"], "8 iterations are not the standard"
    assert stored["robust_accuracy"]["correct"] == int(sum(stored["points"]["square"]))
    assert stored["cost"]["apgd-ce"]["forwards"] == 9 * int(quick.masks["clean"].sum())
    assert "NOT the standard AutoAttack (version standard, with deviations): " in quick.text()
    with np.load(tmp_path / "adversarial.npz") as arrays:
        np.testing.assert_array_equal(arrays["images"], quick.adversarial_images)
    card = json.loads((tmp_path / "model_card.json").read_text())
    assert card["autoattack_acc"] == f"{100 * quick.robust_accuracy.value:.2f}"
    assert card["eps"] == "0.1"


def test_a_report_is_short_in_a_notebook(quick):
    text = repr(quick)
    assert len(text) < 200
    assert f"robust {quick.robust_accuracy.value:.1%}>" in text
    assert "AutoAttack standard, with deviations, linf eps 0.1, 60 points" in text
    assert "after apgd-ce" in quick._repr_html_()


def test_a_picture_that_cannot_be_drawn_is_one_warning(quick, tmp_path, monkeypatch):
    assert not (quick.save(tmp_path, picture=False)[-1].parent / "cascade.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.warns(
        UserWarning, match="cascade.png is not drawn: figures need matplotlib"
    ) as said:
        files = quick.save(tmp_path)
    assert len(said) == 1
    assert {f.name for f in files} == {
        "report.json",
        "report.txt",
        "adversarial.npz",
        "model_card.json",
    }
    assert {f.name for f in tmp_path.iterdir()} == {f.name for f in files}


def test_the_protocol_names_the_loss_of_each_attack(quick):
    losses = {a["attack"]: a.get("loss", "none") for a in quick.protocol["attacks"]}
    assert losses == {
        "apgd-ce": "ce",
        "apgd-t": "dlr_targeted",
        "fab-t": "none",
        "square": "margin",
    }
    plan = protocol("plus", threat=threats.linf(0.1), classes=3)
    found = {item.name: item.attack.settings.get("loss") for item in plan.items}
    assert found["apgd-dlr"] == "dlr"
    assert found["apgd-t"] == "margin_targeted"
    assert found["fab"] is found["fab-t"] is None


def test_a_full_disk_ends_no_evaluation(robust, quick, tmp_path, monkeypatch):
    fn, x, y = robust
    force, left = os.fsync, [4]  # the fingerprint's two files and two items fit

    def full(file):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        force(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="no longer kept in .*: no room on the disk") as said:
        report = evaluation.autoattack(fn, x[:60], y[:60], folder=tmp_path, **QUICK)
    assert len([each for each in said if "no longer kept" in str(each.message)]) == 1
    for name in quick.masks:
        np.testing.assert_array_equal(report.masks[name], quick.masks[name])
    assert len(list(tmp_path.glob("item_*"))) == 2
    assert not list(tmp_path.glob("*.tmp*"))


def linear(classes, shape=(3, 5, 1)):
    weights = np.random.default_rng(0).standard_normal((int(np.prod(shape)), classes))
    return lambda x: x.reshape(len(x), -1) @ jnp.asarray(weights, jnp.float32)


@pytest.mark.parametrize("classes", [2, slow(3), 4, slow(9)])
def test_few_classes_are_attacked_with_fewer_targets_and_labelled(classes, key):
    fn = linear(classes)
    x = np.asarray(jax.random.uniform(key, (12, 3, 5, 1)))
    y = np.asarray(fn(x).argmax(-1))
    report = evaluation.autoattack(fn, x, y, norm="linf", eps=0.05, steps=5, queries=10)
    assert any(f"{classes} classes" in text for text in report.deviations)
    assert not report.protocol["standard_autoattack"]
    targets = {a["attack"]: a["targets"] for a in report.protocol["attacks"]}
    assert targets["apgd-t"] == targets["fab-t"] == classes - 1


@pytest.mark.parametrize("kind", ["nan", "constant", "saturated"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_any_logits_leave_valid_images(kind, norm, key):
    scale = {"nan": np.nan, "constant": 0, "saturated": 1e8}[kind]  # one program for all
    weights = scale * np.random.default_rng(0).standard_normal((15, 4))
    fn = jax.tree_util.Partial(_scaled, jnp.asarray(weights, jnp.float32))
    x = np.asarray(jax.random.uniform(key, (9, 3, 5, 1)))
    y = np.asarray(fn(x).argmax(-1)) if kind == "saturated" else np.zeros(9, int)
    report = evaluation.autoattack(fn, x, y, norm=norm, eps=0.1, steps=4, queries=8)
    assert report.largest_norm <= 0.1 * (1 + 1e-5) + 1e-6
    assert np.isfinite(report.adversarial_images).all()
    failed = {c.name for c in report.checks if not c.passed}
    expected = {
        "nan": "finite logits",
        "constant": "cross-entropy gradients",
        "saturated": "cross-entropy saturation",
    }
    assert expected[kind] in failed or kind == "nan"


@pytest.mark.slow
@settings(deadline=None, max_examples=10, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.sampled_from([0.0, 1e-3, 0.1, 1.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_laws_for_any_linear_model(seed, norm, eps, scale):
    """Images in ball and box, verdicts that hold, masks that only fall; eps 0 changes nothing."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(6, 3, 5, 1)).astype(np.float32)
    x[rng.uniform(size=x.shape) < 0.3] = 0
    y = rng.integers(0, 4, 6)
    fn = jax.tree_util.Partial(
        _scaled, jnp.asarray(scale * rng.standard_normal((15, 4)), jnp.float32)
    )
    report = evaluation.autoattack(fn, x, y, norm=norm, eps=eps, steps=3, queries=4)
    masks = list(report.masks.values())
    for before, after in itertools.pairwise(masks):
        assert (after <= before).all()
    wrong = np.asarray(fn(report.adversarial_images).argmax(-1)) != y
    np.testing.assert_array_equal(wrong, ~masks[-1])
    assert report.largest_norm <= eps * (1 + 1e-5) + 1e-6
    if eps == 0:
        assert (report.adversarial_images == x).all()


def _scaled(weights, x):
    return x.reshape(len(x), -1) @ weights


def test_pools_of_size_one_and_zero(key):
    fn = linear(10)
    x = np.asarray(jax.random.uniform(key, (1, 3, 5, 1)))
    y = np.asarray(fn(x).argmax(-1))
    one = evaluation.autoattack(fn, x, y, norm="linf", eps=0.5, steps=5, queries=5)
    assert one.robust_accuracy.value == 0
    none = evaluation.autoattack(fn, x, (y + 1) % 10, norm="linf", eps=0.5, steps=5, queries=5)
    assert none.clean_accuracy.value == 0
    assert (none.adversarial_images == x).all()


def test_softmax_outputs_and_randomness_are_noticed(key):
    base = linear(10)
    x = np.asarray(jax.random.uniform(key, (6, 3, 5, 1)))
    y = np.asarray(base(x).argmax(-1))
    settings = {
        "norm": "linf",
        "eps": 0.01,
        "version": "custom",
        "attacks": ["apgd-ce"],
        "steps": 2,
    }
    report = evaluation.autoattack(lambda x: jax.nn.softmax(base(x)), x, y, **settings)
    assert "logits, not probabilities" in {c.name for c in report.checks if not c.passed}
    report = evaluation.autoattack(base, x, y, **settings)
    assert all(c.passed for c in report.checks)


def test_randomised_models_are_averaged_over_their_noise(key):
    base = linear(10)

    def noisy(x, keys):
        noise = jax.vmap(lambda k: jax.random.normal(k, x.shape[1:]))(keys)
        return base(x + 0.01 * noise)

    x = np.asarray(jax.random.uniform(key, (6, 3, 5, 1)))
    y = np.asarray(base(x).argmax(-1))
    report = evaluation.autoattack(
        noisy, x, y, norm="linf", eps=0.2, version="rand", stochastic=True, steps=4
    )
    assert [a["attack"] for a in report.protocol["attacks"]] == ["apgd-ce", "apgd-dlr"]
    assert report.protocol["attacks"][0]["eot"] == 20
    assert report.robust_accuracy.value < report.clean_accuracy.value


def test_versions_are_the_published_lists():
    standard = protocol("standard", threat=threats.linf(0.1), classes=10)
    assert len(standard.items) == 1 + 9 + 9 + 1
    assert not standard.deviations
    sparse = protocol("standard", threat=threats.l1(1.0), classes=10)
    assert len(sparse.items) == 5 + 5 + 9 + 1
    assert all(i.attack.eps_schedule for i in sparse.items if i.name.startswith("apgd"))
    plus = protocol("plus", threat=threats.l1(1.0), classes=10)
    assert plus.attacks() == ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"]
    assert not any(getattr(i.attack, "eps_schedule", False) for i in plus.items)
    assert [i.restart for i in plus.items[:5]] == [0, 1, 2, 3, 4]
    assert (
        protocol("standard", threat=threats.l2(0.5), classes=7).deviations[0]
        == "apgd-t: 6 targets in place of 9 (7 classes)"
    )


def test_an_attack_that_lies_is_an_error():
    clean = np.full((2, 2, 2, 1), 0.5, np.float32)
    verify_images("linf", 0.1, clean, clean + np.float32(0.1), "x")
    for bad in (clean + 0.11, clean * np.nan, clean - 0.6):
        with pytest.raises(AttackResultError, match="x returned an image outside its set"):
            verify_images("linf", 0.1, clean, bad.astype(np.float32), "x")
    with pytest.raises(AttackResultError):
        verify_images("l2", 0.1, clean, clean + np.float32(0.06), "x")


def test_square_helping_is_a_warning():
    without = {"square"}
    assert square_check({"clean": 1.0, "apgd-ce": 0.5, "square": 0.45}, without).passed is False
    assert square_check({"clean": 1.0, "apgd-ce": 0.5, "square": 0.499}, without).passed is True
    assert square_check({"clean": 1.0, "square": 0.45}, without) is None
    assert square_check({"clean": 1.0, "apgd-ce": 0.5, "apgd-t": 0.4}, without) is None


def test_clear_errors(robust, tmp_path):
    fn, x, y = robust
    good = {"norm": "linf", "eps": 0.1}
    for change, message in (
        ({"eps": 8}, "eps must be a radius in image units"),
        ({"seed": 2**32}, "seed must be an integer between 0 and 4294967295, got 4294967296"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"norm": "Linf"}, "norm must be one of linf, l2, l1, got 'Linf'"),
        (
            {"version": "fast"},
            "version 'fast' is unknown; choose from standard, plus, rand, custom",
        ),
        ({"attacks": ["square"]}, "attacks belong to version 'custom'"),
        ({"version": "custom", "attacks": ["pgd"]}, "attack 'pgd' is unknown; choose from apgd-ce"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.autoattack(fn, x[:8], y[:8], **good | change)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], got values from 0 to 16"):
        evaluation.autoattack(fn, x[:8] * 16, y[:8], **good)
    with pytest.raises(ValueError, match="same batch size"):
        evaluation.autoattack(fn, x[:8], y[:7], **good)
    with pytest.raises(ValueError, match="at least one"):
        evaluation.autoattack(fn, x[:8], y[:8], version="custom", attacks=[], **good)
    nothing = Identity({"images": "", "labels": "", "arrays": ""}, np.ones((1, 2)), np.ones((1, 2)))
    store = Store(tmp_path, {"a": 1}, nothing)
    store.save(0, dict.fromkeys(ITEM, np.ones(2)))
    np.testing.assert_array_equal(store.load(0)["images"], np.ones(2))
    Store(tmp_path / "other", {"a": 2}, nothing).save(0, dict.fromkeys(ITEM, np.ones(2)))
    (tmp_path / "other" / "item_000.npz").rename(tmp_path / "item_001.npz")  # of other settings
    assert store.load(1) is None
