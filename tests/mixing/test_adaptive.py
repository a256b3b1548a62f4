"""Adaptive attackers: through a surrogate, past a detector, and by margins."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import attacks, evaluation, losses, mixing, threats
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.mixing import MixedOutputs, evading_loss

IMAGES = jax.random.uniform(jax.random.key(3), (12, 4, 4, 1), minval=0.2, maxval=0.8)
WEIGHTS = jax.random.normal(jax.random.key(4), (2, 16, 5))
EPS = 0.1


def linear(images, number, scale):
    return scale * (images.reshape(len(images), -1) - 0.5) @ WEIGHTS[number]


def nuts():
    bases = [partial(linear, number=n, scale=s) for n, s in ((0, 6.0), (1, 2.0))]
    return mixing.mixed_nuts(*bases, s=5.0, p=4.0, c=-1.1, alpha=0.9, surrogate_alpha=0.8)


@pytest.mark.slow
def test_guided_has_the_values_of_the_one_and_the_gradients_of_the_other():
    both = nuts()
    guided = mixing.guided(both, guide=both.surrogate)
    labels = both(IMAGES).argmax(-1)

    def gradient(function, loss):
        return jax.grad(lambda x: loss(function(x), labels).sum())(IMAGES)

    np.testing.assert_array_equal(guided(IMAGES), both(IMAGES))
    values, logits = guided.judge(losses.cross_entropy, IMAGES, labels)
    np.testing.assert_array_equal(logits, both(IMAGES))
    np.testing.assert_array_equal(values, losses.cross_entropy(both(IMAGES), labels))
    judged = jax.grad(lambda x: guided.judge(losses.cross_entropy, x, labels)[0].sum())(IMAGES)
    expected = gradient(both.surrogate, losses.cross_entropy)
    np.testing.assert_allclose(judged, expected, atol=1e-6)
    # The logits' derivatives themselves: what FAB linearises.
    np.testing.assert_allclose(
        jax.grad(lambda x: guided(x)[:, 2].sum())(IMAGES),
        jax.grad(lambda x: both.surrogate(x)[:, 2].sum())(IMAGES),
        atol=1e-6,
    )


@pytest.mark.parametrize("attack", ["apgd", "pgd"])
def test_a_flat_classifier_falls_through_its_guide(attack, key):
    """Rounded logits have no gradients at all: alone they look robust to gradient attacks."""

    def flat(images):
        return jnp.round(linear(images, 0, 2.0) * 2)

    labels = flat(IMAGES).argmax(-1)

    def accuracy(function):
        if attack == "apgd":
            found = attacks.apgd(function, key, IMAGES, labels, norm="linf", eps=EPS, steps=20)
        else:
            threat, size = threats.linf(EPS), {"steps": 10, "step_size": EPS / 4}
            found = attacks.pgd(
                function, key, IMAGES, labels, threat=threat, start=0 * IMAGES, **size
            )
        fooled = flat(found.images).argmax(-1) != labels
        np.testing.assert_array_equal(fooled, found.success)
        return 1 - fooled.mean()

    alone = accuracy(flat)
    through = accuracy(mixing.guided(flat, guide=lambda x: linear(x, 0, 4.0)))
    assert through < alone - 0.3


@pytest.mark.slow
def test_autoattack_through_the_surrogate_counts_the_classifier():
    """Verdicts are MixedNUTS', and more than by its own gradients."""
    both = nuts()
    labels = np.asarray(both(IMAGES).argmax(-1))

    def report(function, *names):
        settings = {"version": "custom", "attacks": names, "steps": 8, "batch_size": 16}
        return evaluation.autoattack(function, IMAGES, labels, norm="linf", eps=EPS, **settings)

    guided = report(mixing.guided(both, guide=both.surrogate), "apgd-ce", "fab-t")
    robust = next(reversed(guided.masks.values()))
    seen = np.asarray(both(jnp.asarray(guided.adversarial_images)).argmax(-1))
    np.testing.assert_array_equal(seen == labels, robust)
    assert guided.clean_accuracy.value == 1
    assert guided.robust_accuracy.value < 0.5
    alone = report(both, "apgd-ce")
    assert guided.robust_accuracy.value <= alone.robust_accuracy.value


def detected_mix():
    """Alpha by the mean of the image: the brighter, the more it is taken for attacked."""

    def outputs(images):
        std, rob = linear(images, 0, 8.0), linear(images, 1, 2.0)
        gamma = 60 * (images.mean((1, 2, 3)) - 0.5)
        alpha = jax.nn.sigmoid(gamma)
        return MixedOutputs(mixing.mix(std, rob, alpha=alpha), std, rob, alpha, gamma)

    return outputs


def test_the_adaptive_attack_evades_the_detector(key):
    outputs = detected_mix()
    labels = outputs(IMAGES).log_probs.argmax(-1)

    def attacked(weight):
        target = mixing.Evading(jax.tree_util.Partial(outputs), jnp.float32(weight))
        settings = {"norm": "linf", "eps": EPS, "steps": 20, "keep": "loss"}
        found = jax.jit(
            lambda t, k: attacks.apgd(t, k, IMAGES, labels, **settings)
        )(target, key)  # fmt: skip
        seen = outputs(found.images)
        base = losses.cross_entropy(seen.log_probs, labels)
        expected = evading_loss(base, seen.gamma, weight=weight)
        np.testing.assert_allclose(found.loss, expected, rtol=1e-4, atol=1e-5)
        return seen.gamma

    plain, evading = attacked(0.0), attacked(0.9)
    assert (evading <= plain + 1e-3).all()
    assert evading.mean() < plain.mean() - 1


def test_evading_needs_a_network_and_a_share():
    base = partial(linear, number=0, scale=1.0)
    with pytest.raises(ValueError, match="mixing network"):
        mixing.evading(mixing.mixed(base, base, alpha=0.5), weight=0.1)


def margins(logits, labels):
    probs = np.array(jax.nn.softmax(logits))
    rows = np.arange(len(probs))
    own = probs[rows, labels]
    probs[rows, labels] = 0
    return own - probs.max(1)


def test_least_margins_are_those_of_the_images_and_below_those_of_apgd(key):
    def five(x):
        return linear(x, 0, 3.0)

    labels = five(IMAGES).argmax(-1)
    find = jax.jit(
        lambda eps: attacks.min_margin(
            five, key, IMAGES, labels, norm="linf", eps=eps, steps=20, targets=4
        )
    )
    found, nothing = find(0.02), find(0.0)
    assert (jnp.abs(found.images - IMAGES) <= 0.02 + 1e-6).all()
    np.testing.assert_allclose(-found.loss, margins(five(found.images), labels), atol=1e-6)
    np.testing.assert_array_equal(found.success, found.loss > 0)
    assert 0 < found.success.mean() < 1
    np.testing.assert_array_equal(nothing.images, IMAGES)
    settings = {"norm": "linf", "eps": 0.02, "steps": 20, "keep": "loss"}
    first = fold_keys(per_example_keys(key, len(IMAGES)), 0)  # the random start of its first run
    plain = attacks.apgd(five, first, IMAGES, labels, **settings)
    assert (-found.loss <= margins(five(plain.images), labels) + 1e-5).all()


def test_the_least_margin_of_two_linear_classes_is_exact(key):
    def two(x):
        return linear(x, 0, 3.0)[:, :2]

    images, eps = IMAGES, EPS
    labels = two(images).argmax(-1)
    exact = attacks.min_margin(two, key, images, labels, norm="linf", eps=eps, steps=20)
    difference = 3.0 * (WEIGHTS[0][:, 0] - WEIGHTS[0][:, 1])
    lead = jnp.abs(two(images)[:, 0] - two(images)[:, 1]) - eps * jnp.abs(difference).sum()
    np.testing.assert_allclose(-exact.loss, jnp.tanh(lead / 2), atol=1e-4)
