"""The fast verdict: as low as AutoAttack at a fifth of its passes, and confirmed in float32."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.fast_verdict import fast_verdict_table
from jaxrobust import evaluation
from jaxrobust.inputs import InputError

IMAGES = np.random.default_rng(0).uniform(0.3, 0.7, (24, 4, 4, 1)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
EPS = 0.025


def linear(weights, images):
    return (images.reshape(len(images), -1) - 0.5) @ weights


NETWORK = jax.tree_util.Partial(linear, jnp.asarray(WEIGHTS))
LABELS = np.asarray(NETWORK(IMAGES)).argmax(-1)
COUNT = len(LABELS)


def exact():
    """The points that a linear network withstands: inside the box its margins are known."""
    logits = np.asarray(NETWORK(IMAGES))
    lead = logits[np.arange(COUNT), LABELS, None] - logits
    reach = EPS * np.abs(WEIGHTS[:, LABELS].T[:, :, None] - WEIGHTS[None]).sum(1)
    reach[np.arange(COUNT), LABELS] = -1
    return (lead > reach).all(1)


@pytest.fixture(scope="module")
def found():
    return evaluation.verdict(NETWORK, IMAGES, LABELS, eps=EPS)


def test_a_linear_network_gets_its_true_accuracy(found):
    truth = exact()
    assert 5 < truth.sum() < 20
    assert list(found.masks) == ["clean", "cr", "pma", "apgd-malt", "square"]
    np.testing.assert_array_equal(found.masks["square"], truth)
    assert found.robust_accuracy.correct == truth.sum()
    assert np.abs(found.adversarial_images - IMAGES).max() <= EPS * (1 + 1e-5)
    predicted = np.asarray(NETWORK(found.adversarial_images)).argmax(-1)
    np.testing.assert_array_equal(predicted == LABELS, truth)


def test_masks_only_fall(found):
    masks = list(found.masks.values())
    for before, after in itertools.pairwise(masks):
        assert not (after & ~before).any()


@pytest.mark.parametrize(("norm", "dual"), [("l2", 2), ("l1", np.inf)])
def test_other_norms_have_their_own_stages(norm, dual):
    few, labels = IMAGES[:8], LABELS[:8]
    slopes = WEIGHTS.T[labels][:, None] - WEIGHTS.T[None]
    steep = np.linalg.norm(slopes, dual, -1) + 1e-9
    logits = np.asarray(NETWORK(few))
    lead = logits[np.arange(8), labels, None] - logits + 9e9 * np.eye(4)[labels]
    reach = (lead / steep).min(1)
    eps = float(np.median(reach))
    found = evaluation.verdict(NETWORK, few, labels, norm=norm, eps=eps)
    assert list(found.masks)[-1] == "square"
    np.testing.assert_array_equal(found.masks["square"], reach > eps)
    assert found.largest_norm <= eps * (1 + 1e-5)


def test_half_precision_gives_the_same_verdicts_confirmed_in_float32(found):
    half = evaluation.verdict(NETWORK, IMAGES, LABELS, eps=EPS, precision="bfloat16")
    assert half.precision == "bfloat16"
    assert not (found.masks["square"] & ~half.masks["square"]).any()
    predicted = np.asarray(NETWORK(half.adversarial_images)).argmax(-1)
    np.testing.assert_array_equal(predicted == LABELS, half.masks["square"])
    with pytest.raises(InputError, match="precision must be .* got 'float64'"):
        evaluation.verdict(NETWORK, IMAGES, LABELS, eps=EPS, precision="float64")


def test_finished_stages_are_taken_up_and_another_network_is_refused(found, tmp_path):
    seen = []
    run = partial(evaluation.verdict, images=IMAGES, labels=LABELS, eps=EPS, folder=tmp_path)
    run(NETWORK)
    again = run(NETWORK, progress=lambda item, done, total: seen.append(item))
    assert not seen
    np.testing.assert_array_equal(again.masks["square"], found.masks["square"])
    with pytest.raises(ValueError, match="arrays"):
        run(jax.tree_util.Partial(linear, jnp.asarray(WEIGHTS[::-1].copy())))


def test_batches_change_nothing(found):
    small = evaluation.verdict(NETWORK, IMAGES, LABELS, eps=EPS, batch_size=8)
    for name, mask in found.masks.items():
        np.testing.assert_array_equal(small.masks[name], mask)


@pytest.mark.slow
def test_digits_are_as_low_as_autoattack_at_a_fifth_of_its_passes():
    rows = fast_verdict_table()
    assert {row.model for row in rows} == {"digits_robust", "digits_standard"}
    for row in rows:
        assert row.robust <= row.autoattack + 0.005 * row.points, row.model
        assert row.share <= 0.2, row.model
