"""A streamed run is the run in memory, bit for bit, wherever it stopped."""

import shutil

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import Dataset, Generated, Stream, Streamed, image_folder
from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import read_rows, train, train_many
from jaxrobust.training._program import Alone
from jaxrobust.training._supply import InMemory, OneByOne, _Joined, make_supply


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty images of two classes that can be told apart, in files."""
    root, noise = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 10)):
        for number in range(count):
            path = root / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 128, (6, 5, 3)) + 127 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return str(root)


def experiment(folder, *, stream, **changes):
    return Experiment(
        **{
            "name": "files",
            "data": use("image_folder", path=folder, stream=stream),
            "model": use("mlp", hidden=(8,)),
            "objective": use("trades", beta=2.0, steps=1),
            "threat": use("linf", eps=0.05),
            "augment": (use("flip"),),
            "epochs": 3,
            "batch_size": 8,
            "validation": Validation(size=10, steps=1),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def in_memory(folder, tmp_path_factory):
    run = train(experiment(folder, stream=False), tmp_path_factory.mktemp("memory"), quiet=True)
    return run, read_rows(run.workdir / "metrics.jsonl")


@pytest.mark.slow
def test_a_streamed_run_equals_the_one_in_memory(folder, in_memory, tmp_path):
    expected, rows = in_memory
    run = train(experiment(folder, stream=True), tmp_path, quiet=True)
    chex.assert_trees_all_equal(run.state, expected.state)
    figures = ("loss", "accuracy", "validation_accuracy", "validation_robust_accuracy")
    for row, other in zip(read_rows(tmp_path / "metrics.jsonl"), rows, strict=True):
        assert [row[name] for name in figures] == [other[name] for name in figures]


@pytest.mark.slow
def test_the_streamed_images_matter(folder, in_memory, tmp_path):
    other = experiment(folder, stream=True, seed=1)
    run = train(other, tmp_path, quiet=True)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(run.state, in_memory[0].state)


@pytest.mark.slow
def test_a_stopped_streamed_run_goes_on_where_it_was(folder, in_memory, tmp_path):
    config = experiment(folder, stream=True)
    train(config, tmp_path, quiet=True, stop_at=9)  # in the middle of the second epoch
    run = train(config, tmp_path, quiet=True, resume=True)
    chex.assert_trees_all_equal(run.state, in_memory[0].state)


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["shard_map", "pmap"])
def test_streams_over_devices(folder, in_memory, tmp_path, runner):
    config = experiment(folder, stream=True)
    run = train(config, tmp_path, quiet=True, runner=runner, devices=jax.devices()[:4])
    params = jax.device_get(run.state.params)
    chex.assert_trees_all_close(params, jax.device_get(in_memory[0].state.params), atol=1e-4)


def test_each_device_takes_its_places_of_the_batch(folder):
    group = Alone(jax.devices()[:4])
    rest, _ = image_folder(folder, stream=True).held_out(10)
    supply = make_supply([experiment(folder, stream=True)], {0: rest}, group)
    in_memory, _ = image_folder(folder).held_out(10)
    whole = make_supply([experiment(folder, stream=False)], {0: in_memory}, group)
    assert isinstance(supply, OneByOne)
    assert isinstance(whole, InMemory)
    for step in (0, 5, 6, 2):  # also back
        images, labels, order = supply.at(step)
        assert order is None
        assert [shard.data.shape for shard in images.addressable_shards] == [(2, 128)] * 4
        rows, all_labels, indices = whole.at(step)
        chosen = np.asarray(indices)[step % whole.steps_per_epoch]
        np.testing.assert_array_equal(images, np.asarray(rows)[chosen])
        np.testing.assert_array_equal(labels, np.asarray(all_labels)[chosen])
    supply.close()


@pytest.mark.parametrize(
    ("devices", "number"),
    [pytest.param(1, 3, id="one"), pytest.param(4, 2, id="four", marks=pytest.mark.slow)],
)
def test_a_streamed_group_equals_the_one_in_memory(folder, tmp_path, devices, number):
    """Each seed has a stream. The programs differ, so the numbers agree to rounding."""
    groups = [
        [
            experiment(
                folder, stream=s, name=str(n), seed=n % 2, epochs=2, threat=use("linf", eps=e)
            )
            for n, e in enumerate((0.05, 0.05, 0.1)[:number])
        ]
        for s in (False, True)
    ]
    folders = [[tmp_path / str(s) / e.name for e in group] for s, group in enumerate(groups)]
    options = {"quiet": True, "devices": jax.devices()[:devices]}
    expected = train_many(groups[0], folders[0], **options)
    train_many(groups[1], folders[1], stop_at=7, **options)  # within the second epoch
    found = train_many(groups[1], folders[1], resume=True, **options, say=lambda line: None)
    for run, other in zip(found, expected, strict=True):
        chex.assert_trees_all_close(run.state, other.state, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_generated_images_are_mixed_into_streams(folder, tmp_path):
    images = np.full((7, 6, 5, 3), 9, np.uint8)
    np.savez(tmp_path / "g.npz", image=images, label=np.arange(7) % 2)
    more = {"generated": use("generated", path=str(tmp_path / "g.npz"), fraction=0.5)}
    runs = [
        train(experiment(folder, stream=s, **more), tmp_path / str(s), quiet=True)
        for s in (True, False)
    ]
    chex.assert_trees_all_equal(runs[0].state, runs[1].state)
    np.savez(tmp_path / "g.npz", image=images[:, :5], label=np.arange(7) % 2)
    with pytest.raises(ValueError, match="generated images are"):
        train(experiment(folder, stream=True, **more), tmp_path / "bad", quiet=True)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_beyond_the_generated_images_is_refused(index):
    labelled = [{"image": np.zeros((2, 2, 1), np.uint8), "label": i} for i in range(4)]
    extra = Generated(np.ones((2, 2, 2, 1), np.uint8), np.array([7, 8]), 0.5)
    joined = _Joined(labelled, np.array([3, 1, 0]), extra)
    assert len(joined) == 3 + 2
    labels = next(Stream(joined, lambda step: np.arange(5)))[1]
    assert labels.tolist() == [3, 1, 0, 7, 8]
    with pytest.raises(ValueError, match="indices must"):
        next(Stream(joined, lambda step: np.array([index])))


def test_held_out_examples_are_those_of_a_set_in_memory(folder):
    streamed, whole = image_folder(folder, stream=True), image_folder(folder)
    assert isinstance(streamed, Streamed)
    assert isinstance(whole, Dataset)
    for size, seed in ((10, 0), (7, 3), (0, 0)):
        rest, out = streamed.held_out(size, seed=seed)
        other, expected = whole.held_out(size, seed=seed)
        np.testing.assert_array_equal(out.test_images, expected.test_images)
        np.testing.assert_array_equal(out.test_labels, expected.test_labels)
        assert rest.train_size == other.train_size == 60 - size
        batch = next(Stream(rest.source, lambda step, rest=rest: rest.indices))
        np.testing.assert_array_equal(batch[0], other.train_images)
        np.testing.assert_array_equal(batch[1], other.train_labels)
    for part in ("test",):
        np.testing.assert_array_equal(streamed.floats(part)[0], whole.floats(part)[0])
    with pytest.raises(ValueError, match="size must be between 0 and 59 training examples, got 60"):
        streamed.held_out(60)


def test_errors(folder, tmp_path):
    config = experiment(folder, stream=True, batch_size=64)
    with pytest.raises(ValueError, match="batch_size must be at most the 50 training examples"):
        train(config, tmp_path / "large", quiet=True)


def test_an_image_that_breaks_later_is_named_and_the_run_can_go_on(folder, in_memory, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    config = experiment(str(own), stream=True)
    run = tmp_path / "run"
    train(config, run, quiet=True, stop_at=6)
    victims = sorted(own.glob("train/*/*.png"))
    kept = [path.read_bytes() for path in victims]
    for path in victims:
        path.write_bytes(b"no image")
    with pytest.raises(ValueError, match="is no readable image"):
        train(config, run, quiet=True, resume=True)
    for path, content in zip(victims, kept, strict=True):
        path.write_bytes(content)
    again = train(config, run, quiet=True, resume=True)
    chex.assert_trees_all_equal(again.state.params, in_memory[0].state.params)
