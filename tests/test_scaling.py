"""The scaling law against the authors' constants, closed form and solver."""

import numpy as np
import pytest

from jaxrobust import scaling


@pytest.mark.parametrize("approach", [2, 3])
def test_the_optimum_is_the_authors(golden, approach):
    data = golden("beyond_public_law")
    for fid, stored in zip(data["fid"], data[f"approach{approach}.N_D_loss"], strict=True):
        found = scaling.compute_optimal(data["flops"], fid=fid, approach=approach)
        for value, column in zip(found[:3], stored.T, strict=True):
            np.testing.assert_allclose(value, column, rtol=1e-7 if approach == 3 else 1e-10)
        np.testing.assert_allclose(found.loss, stored[:, 2], rtol=1e-12)
        np.testing.assert_allclose(found.params * found.images * 7822, data["flops"], rtol=1e-10)
    if approach == 2:
        for fid, accuracy in zip(data["fid"], data["approach2.accuracy"], strict=True):
            found = scaling.compute_optimal(data["flops"], fid=fid, approach=2)
            np.testing.assert_allclose(found.accuracy, accuracy, rtol=1e-12)


@pytest.mark.parametrize("approach", [2, 3])
def test_the_loss_off_the_optimum_is_the_authors(golden, approach):
    data = golden("beyond_public_law")
    n, d = data["grid.N"][:, None], data["grid.D"][None]
    for fid, stored in zip(data["fid"], data[f"grid.approach{approach}_loss"], strict=True):
        found = scaling.predicted_loss(n, d, fid=fid, approach=approach)
        np.testing.assert_allclose(found, stored, rtol=1e-12)


def test_the_accuracies_are_those_that_the_authors_print(golden):
    data = golden("beyond_public_law")
    for fid, printed in zip(
        data["accuracy.printed_fid"], data["accuracy.printed_at_1e30"], strict=True
    ):
        found = scaling.compute_optimal(1e30, fid=fid, approach=2).accuracy
        np.testing.assert_allclose(found, printed, rtol=1e-10)
    limit = scaling.compute_optimal(1e300, fid=0, approach=2).accuracy
    np.testing.assert_allclose(limit, data["accuracy.asymptote_fid0"], rtol=1e-10)


def test_more_of_anything_is_better_and_the_optimum_is_one():
    best = scaling.compute_optimal(1e21, fid=1.65)
    for factor in (0.8, 1.25):
        other = scaling.predicted_loss(best.params * factor, best.images / factor, fid=1.65)
        assert other > best.loss
    assert scaling.predicted_loss(2 * best.params, best.images, fid=1.65) < best.loss
    assert scaling.predicted_loss(best.params, best.images, fid=5.0) > best.loss


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: scaling.compute_optimal(0.0, fid=1.65), "flops must be above 0"),
        (lambda: scaling.compute_optimal(np.nan, fid=1.65), "flops .* nan"),
        (lambda: scaling.compute_optimal(1e21, fid=-1), "fid must be at least 0 .* -1"),
        (lambda: scaling.compute_optimal(1e21, fid=1.65, approach=1), "approach must be 2 or 3"),
        (lambda: scaling.predicted_loss(-1, 1e8, fid=1.65), "params must be above 0"),
        (lambda: scaling.predicted_loss(1e8, [1e8, 0], fid=1.65), "images must be above 0"),
        (lambda: scaling.predicted_accuracy("a"), "loss must be"),
        (lambda: scaling.predicted_accuracy(0.1), "loss must be in .*got 0.1"),
        (lambda: scaling.predicted_accuracy([0.7, 3.0]), "loss must be in .*got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
