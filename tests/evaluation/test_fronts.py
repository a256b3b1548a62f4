"""Fronts, their areas and their comparison, by hand."""

import numpy as np
import pytest

from jaxrobust import evaluation
from jaxrobust.evaluation import compare_fronts, front, hypervolume, robust_at
from jaxrobust.inputs import InputError

NOTHING_BEATS = ([0.9, 0.8, 0.7, 0.6, 0.9], [0.1, 0.5, 0.4, 0.6, 0.05])


def test_the_front_is_what_nothing_beats_in_both():
    assert front(*NOTHING_BEATS) == [3, 1, 0]
    assert front([], []) == []
    assert front([0.5, 0.5], [0.5, 0.5]) == [0]  # of equal points the first


def test_the_hypervolume_is_the_area_of_the_staircase():
    """0.6 x 0.6 + 0.2 x 0.5 + 0.1 x 0.1 from the origin; two rectangles above (0.5, 0.2)."""
    assert hypervolume(*NOTHING_BEATS) == pytest.approx(0.36 + 0.1 + 0.01)
    corner = (0.5, 0.2)
    assert hypervolume(*NOTHING_BEATS, reference=corner) == pytest.approx(0.1 * 0.4 + 0.2 * 0.3)
    assert hypervolume([0.4, 0.9], [0.9, 0.2], reference=corner) == 0  # on an edge, and left of it
    assert hypervolume([], []) == 0


def test_robust_accuracy_is_read_between_neighbours_on_the_front_only():
    """0.7 lies below the front: the segment from (0.6, 0.6) to (0.8, 0.5) passes above it."""
    found = robust_at(*NOTHING_BEATS, [0.59, 0.6, 0.7, 0.85, 0.9, 0.91])
    np.testing.assert_allclose(found, [np.nan, 0.6, 0.55, 0.3, 0.1, np.nan])
    assert np.isnan(robust_at([], [], [0.5])).all()


def right(share, images=100):
    """A mask that is true for the first images."""
    return (np.arange(images) < round(share * images))[None]


def method(*points, images=100):
    """Masks `[points, 1, images]` from pairs of accuracies."""
    return tuple(
        np.stack([right(point[i], images) for point in points]) for i in (0, 1)
    )  # fmt: skip


def test_a_front_that_is_always_above_is_surely_above():
    better = method((0.95, 0.2), (0.9, 0.6))
    worse = method((0.95, 0.1), (0.9, 0.3))
    found = compare_fronts(better, worse, resamples=500)
    # Halfway, (0.2 + 0.6) / 2 - (0.1 + 0.3) / 2.
    np.testing.assert_allclose(found.difference[[0, 20, 40]], [0.3, 0.2, 0.1], atol=1e-12)
    np.testing.assert_allclose(found.at[[0, 40]], [0.9, 0.95])
    # (0.9 x 0.6 + 0.05 x 0.2) - (0.9 x 0.3 + 0.05 x 0.1)
    assert found.area == pytest.approx(0.275)
    assert found.area_low > 0
    assert found.larger == 1
    text = found.sentence("A", "B")
    assert text.startswith("A is above B from ")
    assert "A dominates the larger area in 100 % of 500 paired resamples of 100 images" in text
    mirrored = compare_fronts(worse, better, resamples=500).sentence("B", "A")
    assert mirrored == text


def test_the_interval_is_that_of_paired_images():
    """One image in ten decides: the difference is binomial, 0.1 with a deviation of 0.015."""
    first, second = method((0.9, 0.5), images=400), method((0.9, 0.4), images=400)
    found = compare_fronts(first, second, resamples=4000)
    deviation = np.sqrt(0.1 * 0.9 / 400)
    area = 0.9 * 0.1
    assert found.area == pytest.approx(area)
    assert found.area_low == pytest.approx(area - 1.96 * 0.9 * deviation, abs=0.004)
    assert found.area_high == pytest.approx(area + 1.96 * 0.9 * deviation, abs=0.006)


def test_equal_methods_and_fronts_without_a_common_range_say_so():
    one = method((0.95, 0.2), (0.9, 0.6))
    same = compare_fronts(one, one, resamples=50)
    assert same.larger == 0.5
    assert "Neither A nor B is surely above the other" in same.sentence("A", "B")
    apart = compare_fronts(one, method((0.5, 0.7), (0.4, 0.8)), resamples=50)
    assert len(apart.at) == 0
    assert "reach no common clean accuracy" in apart.sentence("A", "B")


def test_seeds_are_resampled_with_the_images():
    """Of two seeds one is twice as robust: half of the difference comes and goes with it."""
    clean = np.ones((1, 2, 100), bool)
    robust = np.stack([right(0.8), right(0.4)], 1)
    found = compare_fronts((clean, robust), (clean, robust & False), resamples=2000)
    assert found.area == pytest.approx(0.6)
    assert found.area_low < 0.45
    assert found.area_high > 0.75


def test_what_cannot_be_compared_is_refused():
    one = method((0.9, 0.5))
    for other, message in (
        (method((0.9, 0.5), images=50), "the same seeds and images"),
        ((one[0][0], one[1][0]), "second must be two arrays"),
        ((one[0] * 1.0, one[1]), "of bool, got float64"),
    ):
        with pytest.raises(InputError, match=message):
            compare_fronts(one, other)
    with pytest.raises(InputError, match="numbers of one length"):
        front([0.5], [0.5, 0.6])
    with pytest.raises(InputError, match="clean must be a finite number, got nan"):
        hypervolume([np.nan], [0.5])
    with pytest.raises(InputError, match="reference must be two"):
        hypervolume([0.5], [0.5], reference=(0.1,))


def test_masks_survive_a_row():
    masks = {"clean": np.arange(21) % 3 > 0, "robust": np.arange(21) % 2 > 0}
    found = evaluation.unpacked_right(evaluation.packed_right(masks))
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)
    for damaged in ({}, {"images": 90, "columns": {"clean": "/wA="}}, {"images": 1, "columns": 3}):
        with pytest.raises(InputError, match="packed holds no masks"):
            evaluation.unpacked_right(damaged)


def test_fronts_whose_ranges_meet_in_some_resamples_alone():
    """Over all images one ends where the other has not begun; resampled they may overlap."""
    order = np.random.default_rng(0).permuted(np.tile(np.arange(60.0), (3, 1)), axis=1)
    low, high = (np.stack([order < n for n in ends]) for ends in ((48, 54), (55, 58)))
    robust = [np.stack([pair[0], pair[1] & (order < 40)]) for pair in (low, high)]
    found = evaluation.compare_fronts((low, robust[0]), (high, robust[1]), resamples=300)
    assert found.at.shape == found.low.shape == (0,)
    assert np.isfinite([found.area, found.area_low, found.area_high]).all()
