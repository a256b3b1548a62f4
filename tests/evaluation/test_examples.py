"""The engine: one driver, whose keys, padding and order are those of its two predecessors."""

import hashlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust.attacks import Attacked
from jaxrobust.evaluation import over_examples
from jaxrobust.evaluation._examples import bucket_sizes, buckets, one_shape
from jaxrobust.evaluation._protocol import WorkItem
from jaxrobust.evaluation._work import Points, Programs, run_item
from jaxrobust.keys import key_of

N = 61
IMAGES = np.random.default_rng(0).uniform(size=(N, 2, 2, 1)).astype(np.float32)
LABELS = (np.arange(N) % 7).astype(np.int32)


def digest(tree):
    found = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        found.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return found.hexdigest()[:16]


def recorded():
    """A function, and what it was called with."""
    calls = []

    def function(keys, images, labels):
        calls.append((jax.random.key_data(keys), images, labels))
        noise = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
        return {"noise": noise, "twice": images * 2, "label": labels}

    return function, calls


def folded(*numbers):
    key = key_of(3)
    for number in numbers:
        key = jax.random.fold_in(key, number)
    return key


# Digests of results and of all batches, padding included, that `map_batches` and `in_buckets` made
# on eight devices, which this engine has replaced.
ONE_SHAPE = [
    (16, [16, 16, 16, 13], "1b2a327055e8cf7e"),
    (24, [24, 24, 13], "628a303039732731"),
    (64, [61], "390423b6789fcbbb"),
    (256, [61], "390423b6789fcbbb"),
]
THREE_SHAPES = [
    (16, np.arange(N), [16, 16, 16, 13], "6edf93da42435e9a", "8dec97fb1bd6c728"),
    (16, np.arange(1, N, 3), [16, 4], "be905564643886cb", "629941b93caf52e6"),
    (16, np.array([5, 9, 40]), [3], "5df18266c85f3d47", "8e12872bdfb75c05"),
    (61, np.arange(N), [61], "6edf93da42435e9a", "18a51f91533bc297"),
]


@pytest.mark.parametrize(("batch_size", "told", "batches"), ONE_SHAPE)
def test_one_shape_is_what_map_batches_did(batch_size, told, batches):
    (function, calls), done = recorded(), []
    found = over_examples(
        function, folded(2), np.arange(N), IMAGES, LABELS,
        shapes=one_shape(N, batch_size), done=done.append,
    )  # fmt: skip
    assert (done, digest(found), digest(calls)) == (told, "4403db055accb45a", batches)


@pytest.mark.parametrize(("batch_size", "rows", "told", "result", "batches"), THREE_SHAPES)
def test_three_shapes_are_what_in_buckets_did(batch_size, rows, told, result, batches):
    (function, calls), done = recorded(), []
    found = over_examples(
        function, folded(4, 1, 2), rows, IMAGES[rows], LABELS[rows],
        shapes=bucket_sizes(batch_size, jax.device_count()), done=done.append,
    )  # fmt: skip
    assert (done, digest(found), digest(calls)) == (told, result, batches)


def test_states_go_through_and_keys_are_left_out_where_none_is_given():
    state = {"x": IMAGES, "label": (LABELS,)}
    found = over_examples(lambda state: state, None, np.arange(N), state, shapes=[8, 3, 8])
    assert jax.tree.all(jax.tree.map(np.array_equal, found, state))
    for wrong, message in (
        ({"indices": np.zeros(0, int)}, "at least one example, got none"),
        ({"shapes": [0]}, "shapes must be an integer of at least 1, got 0"),
    ):
        arguments = {"indices": np.arange(N), "shapes": [8]} | wrong
        with pytest.raises(ValueError, match=message):
            over_examples(lambda: (), None, arguments.pop("indices"), **arguments)


def test_buckets_cover_everything_with_few_shapes():
    sizes = bucket_sizes(128, 1)
    assert sizes == [128, 32, 8]
    assert bucket_sizes(100, 8) == [104, 32, 8]
    for size in range(0, 400):
        covered = list(buckets(size, sizes))
        assert sum(count for _, count, _ in covered) == size
        assert all(count <= shape and shape in sizes for _, count, shape in covered)
        assert sum(shape for _, _, shape in covered) <= 2 * size + 8


@jax.tree_util.register_static
@dataclass(frozen=True)
class Countdown:
    """An attack from outside that offers its states: an example needs as many parts as its label."""

    parts = 9

    def begin(self, logits_fn, key, images, labels):
        return {"left": labels, "noise": jax.vmap(jax.random.uniform)(key)}

    def go_on(self, logits_fn, number, state, key, images, labels):
        return {"left": state["left"] - 1, "noise": state["noise"] + number.astype(jnp.float32)}

    def done(self, state):
        return state["left"] <= 0

    def end(self, state, images):
        moved = images + state["noise"][:, None, None, None]
        return Attacked(moved, state["left"] == 0, state["noise"])

    def passes(self, classes, *, targeted):
        return 3, 2


def test_examples_leave_any_attack_that_runs_in_parts():
    item, indices, told = WorkItem("mine", 6, Countdown(), 0, 0), np.arange(N, dtype=np.int32), []
    points = Points(indices, IMAGES, LABELS, ())
    found = run_item(
        item, Programs(lambda x: x[:, 0, 0]), points, seed=3, shapes=[16, 8], classes=7,
        advance=told.append,
    )  # fmt: skip
    assert found.success.all()
    # Label 0 needs no part; those with label n leave after part n; nobody is left at the end.
    assert told == [*np.bincount(LABELS), 0]
    first = [n * (n - 1) / 2 for n in LABELS]  # the sum of the numbers of its parts
    noise = (found.images - IMAGES)[:, 0, 0, 0] - np.array(first, np.float32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(folded(6, 0, 0), indices)
    np.testing.assert_allclose(noise, jax.vmap(jax.random.uniform)(keys), atol=1e-5)
    assert (found.forwards, found.backwards) == (3 * N, 2 * N)
