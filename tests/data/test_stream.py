"""Streams: every epoch sees every example once, and resuming is exact."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxrobust import data


def examples(size=23):
    return [{"image": np.full((2, 3, 1), i, np.uint8), "label": i} for i in range(size)]


def labels_of(stream, count):
    return [next(stream)[1].tolist() for _ in range(count)]


def test_batches_belong_to_their_labels():
    stream = data.stream(examples(), batch_size=5)
    images, labels = next(stream)
    assert images.shape == (5, 2, 3, 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


def test_every_epoch_is_a_fresh_shuffle_without_repeats():
    stream = data.stream(examples(), batch_size=5, seed=1)
    assert stream.steps_per_epoch == 4
    epochs = [np.ravel(labels_of(stream, 4)).tolist() for _ in range(3)]
    for epoch in epochs:
        assert len(set(epoch)) == 20
    assert epochs[0] != epochs[1] != epochs[2]
    for seed in (1, 2):
        again = labels_of(data.stream(examples(), batch_size=5, seed=seed), 4)
        assert (epochs[0] == np.ravel(again).tolist()) == (seed == 1)


def test_processes_see_disjoint_parts_of_the_same_epoch():
    for size in (23, 24, 26):
        parts = [
            data.stream(examples(size), batch_size=6, process_index=i, process_count=3)
            for i in range(3)
        ]
        assert {p.steps_per_epoch for p in parts} == {size // 6}
        for _ in range(2):
            seen = [label for p in parts for batch in labels_of(p, size // 6) for label in batch]
            assert len(set(seen)) == len(seen) == 6 * (size // 6)


@pytest.mark.parametrize("position", [0, 1, 3, 4, 5, 11])
def test_resuming_gives_the_identical_batches(position):
    stream = data.stream(examples(), batch_size=5, seed=3)
    labels_of(stream, position)
    state = json.loads(json.dumps(stream.get_state()))
    following = labels_of(stream, 9)
    fresh = data.stream(examples(), batch_size=5, seed=3)
    fresh.set_state(state)
    assert labels_of(fresh, 9) == following
    stream.set_state(state)  # and back, in the same stream
    assert labels_of(stream, 9) == following


def test_resuming_in_another_process():
    stream = data.stream(examples(), batch_size=5, seed=3)
    labels_of(stream, 6)
    code = (
        "import json, sys; from tests.data.test_stream import data, examples, labels_of\n"
        "stream = data.stream(examples(), batch_size=5, seed=3)\n"
        "stream.set_state(json.loads(sys.argv[1]))\n"
        "print(json.dumps(labels_of(stream, 3)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(stream.get_state())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == labels_of(stream, 3)


def test_a_state_of_other_settings_is_refused():
    state = data.stream(examples(), batch_size=5, seed=3).get_state()
    with pytest.raises(
        ValueError, match="the state comes from a stream with seed 3, this one has 4"
    ):
        data.stream(examples(), batch_size=5, seed=4).set_state(state)
    with pytest.raises(ValueError, match="with size 23, this one has 22"):
        data.stream(examples(22), batch_size=5, seed=3).set_state(state)


def test_a_folder_is_streamed(tmp_path):
    for number in range(6):
        path = tmp_path / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    stream = data.stream(data.folder_source(str(tmp_path)), batch_size=3, threads=2)
    images, labels = (
        np.concatenate(parts) for parts in zip(next(stream), next(stream), strict=True)
    )
    assert sorted(images[:, 0, 0, 0].tolist()) == list(range(6))
    np.testing.assert_array_equal(images[:, 0, 0, 0] % 2, labels)


def test_bad_arguments_and_images():
    for options, message in (
        ({"batch_size": 24}, "at most the 23 examples, got 24"),
        ({"batch_size": 5, "process_count": 2}, "a multiple of the 2 processes .* got 5"),
        (
            {"batch_size": 5, "process_index": 1},
            "process_index must be an integer between 0 and 0, got 1",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            data.stream(examples(), **options)
    unequal = [*examples(3), {"image": np.zeros((9, 9, 1), np.uint8), "label": 0}]
    with pytest.raises(ValueError, match="images must have one size"):
        next(data.stream(unequal, batch_size=4))
