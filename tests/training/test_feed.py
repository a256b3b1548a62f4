"""Which examples a run trains on."""

import jax
import numpy as np
import pytest

from jaxrobust.data import digits
from jaxrobust.experiment import Experiment, use
from jaxrobust.training._supply import Feed


def experiment(**changes):
    return Experiment(
        **{
            "name": "x",
            "data": use("digits"),
            "model": use("mlp"),
            "objective": use("standard"),
            "threat": use("linf", eps=0.1),
            "batch_size": 100,
            **changes,
        }
    )


def test_labelled_examples_alone():
    feed = Feed.of(experiment(), digits())
    assert feed.steps_per_epoch == 14
    order = np.asarray(feed.order(jax.random.key(0), 0))
    assert order.shape == (14, 100)
    assert len(np.unique(order)) == 1400


def test_generated_examples_fill_their_part_of_every_batch(tmp_path):
    images = np.full((50, 8, 8, 1), 7, np.uint8)
    np.savez(tmp_path / "g.npz", image=images, label=np.arange(50) % 10)
    generated = use("generated", path=str(tmp_path / "g.npz"), fraction=0.7)
    feed = Feed.of(experiment(generated=generated), digits())
    assert feed.images.shape == (1437 + 50, 8, 8, 1)
    assert feed.steps_per_epoch == 15
    order = np.asarray(feed.order(jax.random.key(0), 0))
    assert order.shape == (15, 100)
    assert ((order >= 1437).sum(1) == 70).all()
    labelled = order[order < 1437]
    assert len(np.unique(labelled)) == len(labelled) == 450
    assert (feed.images[order[order >= 1437]] == 7).all()
    assert feed.labels[1437 + 13] == 3


def test_what_does_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "g.npz", image=np.zeros((5, 9, 9, 1), np.uint8), label=np.zeros(5, int))
    generated = use("generated", path=str(tmp_path / "g.npz"))
    with pytest.raises(ValueError, match="generated images are"):
        Feed.of(experiment(generated=generated), digits())
    with pytest.raises(ValueError, match="batch_size must be at most the 1437 training examples"):
        Feed.of(experiment(batch_size=2000), digits())
