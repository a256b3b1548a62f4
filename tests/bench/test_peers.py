"""PGD of other libraries: what is missing or fails is said, what is wrong is not timed."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peer_table as bench


def table():
    return bench.peer_table(width=2, batch_size=4, steps=1, repeats=1)


@pytest.fixture
def peers(monkeypatch):
    """Sets what the other libraries are."""

    def become(**made):
        found = {name: ("jaxrobust", "jax", make) for name, make in made.items()}
        monkeypatch.setattr(bench, "PEERS", found)

    return become


@pytest.mark.slow
def test_a_missing_or_failing_library_has_a_row(peers, monkeypatch):
    def fails(problem):
        raise RuntimeError("no such operator\nat line 3")

    peers(broken=fails)
    missing = ("nonexistent_library", "jax", fails)
    monkeypatch.setitem(bench.PEERS, "other", missing)
    ours, broken, other = table()
    assert ours.ratio == 1
    assert ours.seconds > 0
    assert broken.problem == "no such operator"
    assert other.problem == "nonexistent_library not installed"
    assert np.isnan(other.seconds)


@pytest.mark.slow
def test_the_same_attack_is_timed_and_another_is_not(peers):
    peers(same=bench._ours)
    _, same = table()
    assert same.image_difference == 0
    peers(outside=lambda problem: lambda: jnp.clip(problem.images + 0.2, 0, 1))
    with pytest.raises(AssertionError, match="outside leaves the ball"):
        table()


@pytest.mark.slow
def test_another_number_of_robust_images_is_refused(peers, monkeypatch):
    peers(weak=lambda problem: lambda: problem.images)
    counts = iter((4, 0) * 3)
    monkeypatch.setattr(bench, "_robust", lambda problem, images: next(counts))
    with pytest.raises(AssertionError, match="images robust, ours"):
        table()


def test_versions():
    assert bench._version("nonexistent_library") == ""
    assert bench._version("jaxrobust")
