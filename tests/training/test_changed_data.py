"""A run goes on with the examples that it began with, and with no others."""

import shutil

import numpy as np
import pytest
from PIL import Image

from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import train

REFUSED = "the training examples of .* are not those that it began with"


def experiment(data, **changes):
    return Experiment(
        **{
            "name": "changing",
            "data": data,
            "model": use("mlp", hidden=(4,)),
            "objective": use("standard"),
            "threat": use("linf", eps=0.1),
            "epochs": 2,
            "batch_size": 8,
            "validation": Validation(size=0),
            **changes,
        }
    )


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (16, 4, 4, 1)).astype(np.uint8),
        "labels": np.arange(16) % 2,
    }


def write_npz(path, seed=0, **changes):
    test = {"test_images": arrays()["images"][:4], "test_labels": np.arange(4) % 2}
    np.savez(path, **(arrays(seed) | test | changes))


def images(folder, seed=0):
    for part in ("train", "test"):
        for number, pixels in enumerate(arrays(seed)["images"][..., 0]):
            path = folder / part / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def changed_npz(path):
    write_npz(path, seed=1)


def relabelled(path):
    write_npz(path, labels=1 - np.arange(16) % 2)


@pytest.mark.parametrize("change", [changed_npz, relabelled])
def test_in_memory(tmp_path, change):
    path = tmp_path / "set.npz"
    write_npz(path)
    config = experiment(use("npz", path=str(path)))
    train(config, tmp_path / "run", stop_at=1, quiet=True)
    change(path)
    with pytest.raises(ValueError, match=REFUSED):
        train(config, tmp_path / "run", resume=True, quiet=True)
    write_npz(path)
    assert int(train(config, tmp_path / "run", resume=True, quiet=True).state.step) == 4


def test_streamed(tmp_path):
    images(tmp_path / "set")
    data = use("image_folder", path=str(tmp_path / "set"), stream=True, channels=1)
    train(experiment(data), tmp_path / "run", stop_at=1, quiet=True)
    shutil.rmtree(tmp_path / "set")
    images(tmp_path / "set", seed=1)
    with pytest.raises(ValueError, match=REFUSED):
        train(experiment(data), tmp_path / "run", resume=True, quiet=True)


def test_generated(tmp_path):
    write_npz(tmp_path / "set.npz")
    np.savez(tmp_path / "more.npz", **arrays(2))
    config = experiment(
        use("npz", path=str(tmp_path / "set.npz")),
        generated=use("generated", path=str(tmp_path / "more.npz"), fraction=0.5),
    )
    train(config, tmp_path / "run", stop_at=1, quiet=True)
    np.savez(tmp_path / "more.npz", **arrays(3))
    with pytest.raises(ValueError, match=REFUSED):
        train(config, tmp_path / "run", resume=True, quiet=True)


def test_a_run_without_a_digest_gets_one_and_one_that_begins_anew_another(tmp_path):
    path, digest = tmp_path / "set.npz", tmp_path / "run" / "data.sha256"
    write_npz(path)
    config = experiment(use("npz", path=str(path)))
    train(config, tmp_path / "run", stop_at=1, quiet=True)
    before = digest.read_text()
    digest.unlink()  # a run of an older version
    train(config, tmp_path / "run", resume=True, quiet=True)
    assert digest.read_text() == before
    write_npz(path, seed=1)
    for name in ("checkpoints", "checkpoints.copies"):
        shutil.rmtree(tmp_path / "run" / name, ignore_errors=True)
    (tmp_path / "run" / "metrics.jsonl").unlink()
    train(config, tmp_path / "run", stop_at=1, quiet=True)
    assert digest.read_text() != before
