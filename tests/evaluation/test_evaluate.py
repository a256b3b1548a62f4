"""Evaluation over a data set: padding, batch size and order change no example's result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import evaluation, losses, threats


def model(x):
    weights = jnp.asarray(np.random.default_rng(0).standard_normal((16, 3)), jnp.float32)
    return x.reshape(len(x), -1) @ weights


@pytest.fixture
def batch(key):
    images = np.asarray(jax.random.uniform(key, (37, 4, 4, 1)))
    return images, np.asarray(model(images).argmax(-1))


def test_no_result_depends_on_the_batch_size(batch):
    images, labels = batch
    attacks = evaluation.pgd_attacks(threats.linf(0.02), steps=3, restarts=2)
    results = [
        evaluation.evaluate(model, images, labels, attacks=attacks, batch_size=size)
        for size in (37, 16, 8, 5, 1000)
    ]
    for other in results[1:]:
        for name, mask in results[0].masks.items():
            np.testing.assert_array_equal(mask, other.masks[name])
        np.testing.assert_allclose(
            other.adversarial_images["pgd"], results[0].adversarial_images["pgd"], atol=1e-6
        )
    robust = results[0].robust["pgd"]
    assert 0 < robust.value < 1 == results[0].clean.value


def test_figures_are_counts_of_the_masks(batch):
    images, labels = batch
    labels = labels.copy()
    labels[:7] = (labels[:7] + 1) % 3
    attacks = evaluation.pgd_attacks(threats.l2(0.05), steps=5)
    result = evaluation.evaluate(model, images, labels, attacks=attacks, batch_size=16)
    assert result.clean.correct == 30
    adversarial = result.adversarial_images["margin_pgd"]
    wrong = np.asarray(model(adversarial).argmax(-1)) != labels
    assert result.robust["margin_pgd"].correct == (result.masks["clean"] & ~wrong).sum()
    assert result.worst.correct <= min(a.correct for a in result.robust.values())
    figures = result.figures()
    assert figures["clean_accuracy"]["total"] == 37


def test_intervals_are_wilsons():
    found = evaluation.accuracy(np.arange(360) < 286)
    # By the formula: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    p, n, z = 286 / 360, 360, 1.959964
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(p + z**2 / (2 * n) + sign * half) / (1 + z**2 / n) for sign in (-1, 1)]
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-5)
    none = evaluation.accuracy(np.zeros(50, bool))
    assert none.low == pytest.approx(0, abs=1e-12)
    assert 0.05 < none.high < 0.1


def test_an_attack_may_not_vouch_for_itself(batch):
    from jaxrobust.attacks import Attacked

    def liar(logits_fn, keys, images, labels):
        return Attacked(images, jnp.ones(len(images), bool), jnp.zeros(len(images)))

    images, labels = batch
    result = evaluation.evaluate(model, images, labels, attacks={"liar": liar})
    assert result.robust["liar"].value == 1.0


def test_new_parameters_and_radii_do_not_recompile(batch, compilations):
    def net(weights, x):
        return x.reshape(len(x), -1) @ weights

    images, labels = batch
    for scale, eps in ((1.0, 0.01), (2.0, 0.02), (3.0, 0.03)):
        fn = jax.tree_util.Partial(net, scale * jnp.ones((16, 3)))
        attacks = {"pgd": evaluation.PGD(threat=threats.linf(eps), steps=2, loss=losses.margin)}
        evaluation.evaluate(fn, images, labels, attacks=attacks, batch_size=16)
        assert sum("_attacked" in name for name in compilations) == 1


def test_clear_errors(batch):
    images, labels = batch
    for bad, message in (
        (images * 255, r"images must lie in \[0, 1\], got values from .* normalisation belongs"),
        ((images * 255).astype(np.uint8), "divide uint8 by 255"),
        (images[:0], "n >= 1"),
        (images[0], r"must be \[n, h, w, c\]"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluation.evaluate(model, bad, labels, attacks={})
    for seed in (-1, 0.5, 2**32, True):  # JAX would take the lower 32 bits
        with pytest.raises(ValueError, match="seed must be an integer between 0 and 4294967295"):
            evaluation.evaluate(model, images, labels, attacks={}, seed=seed)


def test_attacks_that_differ_in_numbers_share_one_trace(batch):
    images, labels = batch
    calls = []

    def counted(x):
        calls.append(x.shape)
        return model(x)

    def run(*between):
        radii = [threats.linf(0.01), *between, threats.linf(0.05)]
        attacks = {str(n): evaluation.PGD(threat=t, steps=3) for n, t in enumerate(radii)}
        calls.clear()
        return evaluation.evaluate(counted, images, labels, attacks=attacks), len(calls)

    (alike, few), (other, more) = run(threats.linf(0.03)), run(threats.l2(0.03))
    assert few < more
    _, same = run(threats.linf(0.02), threats.linf(0.03), threats.linf(0.04))
    assert same == few  # five attacks cost no more traces than three
    for name in ("0", "2"):  # with the same noise: what they find is their own
        np.testing.assert_array_equal(alike.masks[name], other.masks[name])
        np.testing.assert_array_equal(
            alike.adversarial_images[name], other.adversarial_images[name]
        )
    largest = [np.abs(alike.adversarial_images[n] - images).max() for n in "012"]
    np.testing.assert_allclose(largest, [0.01, 0.03, 0.05], rtol=1e-4)


def test_a_network_that_knows_one_class_is_a_warning():
    """As after a training that collapsed: its accuracy is that of one class under every attack."""
    images = jnp.linspace(0, 1, 40 * 4).reshape(40, 2, 2, 1)
    labels = np.arange(40) % 4

    def constant(x):
        return (
            jnp.tile(jnp.asarray([0.0, 3.0, 1.0, 2.0]), (len(x), 1)) + 0 * x.sum((1, 2, 3))[:, None]
        )

    attack = evaluation.PGD(threat=threats.linf(0.1), steps=1)
    for report in (
        evaluation.evaluate(constant, images, labels, attacks={"pgd": attack}),
        evaluation.autoattack(
            constant, images, labels, norm="linf", eps=0.1, version="custom", attacks=("apgd-ce",),
            steps=1,
        ),
    ):  # fmt: skip
        assert "all 40 images get class 1" in report.text()
    few = evaluation.evaluate(constant, images[:8], labels[:8], attacks={"pgd": attack})
    assert "get class" not in few.text()
    same = evaluation.evaluate(constant, images, 0 * labels + 1, attacks={"pgd": attack})
    assert "get class" not in same.text()
