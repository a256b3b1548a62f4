"""Images sorted into one folder per class."""

import numpy as np
import pytest
from PIL import Image

from jaxrobust import data

CLASSES = ("ant", "bee", "cat")


def write(path, number, side=(4, 6), mode="RGB"):
    """An image with random pixels; they are returned."""
    shape = side if mode == "L" else (*side, 3)
    pixels = np.random.default_rng(number).integers(0, 256, shape).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                write(tmp_path / part / name / f"{number}.png", 100 * label + 10 * number + count)
    return tmp_path


def test_a_folder_is_read_in_the_order_of_names(folder):
    (folder / "train" / "ant" / ".hidden").write_text("x")
    (folder / "train" / "ant" / "boxes.txt").write_text("x")
    dataset = data.image_folder(str(folder))
    assert dataset.name == folder.name
    assert dataset.num_classes == 3
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(dataset.train_images[4], write(folder / "again.png", 113))
    assert dataset.image_shape == (4, 6, 3)


def test_val_and_other_names(folder):
    (folder / "test").rename(folder / "val")
    assert len(data.image_folder(str(folder), name="mine").test_labels) == 6
    (folder / "val").rename(folder / "other")
    assert len(data.image_folder(str(folder), test="other").test_labels) == 6
    with pytest.raises(ValueError, match=r"test is no folder: it must hold one folder of images"):
        data.image_folder(str(folder))


def test_grey_images_and_images_in_deeper_folders(tmp_path):
    for part in ("train", "test"):
        grey = write(tmp_path / part / "a" / "images" / "0.png", 0, mode="L")
        write(tmp_path / part / "b" / "0.png", 1, mode="L")
    dataset = data.image_folder(str(tmp_path), channels=1)
    np.testing.assert_array_equal(dataset.train_images[0, ..., 0], grey)
    np.testing.assert_array_equal(
        data.image_folder(str(tmp_path)).train_images[0], np.repeat(grey[..., None], 3, axis=2)
    )
    with pytest.raises(ValueError, match="channels must be one of 1, 3, 4, got 2"):
        data.image_folder(str(tmp_path), channels=2)


def test_tiny_imagenet_as_it_is_published(tmp_path):
    for name in ("n01", "n02"):
        write(tmp_path / "train" / name / "images" / f"{name}_0.JPEG", 0)
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t3\t3")
    lines = []
    for number, name in enumerate(["n02", "n01", "n02"]):
        write(tmp_path / "val" / "images" / f"val_{number}.JPEG", number)
        lines.append(f"val_{number}.JPEG\t{name}\t0\t0\t3\t3")
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines))
    # As published there is a test folder too, without labels: choose val.
    write(tmp_path / "test" / "images" / "test_0.JPEG", 0)
    dataset = data.image_folder(str(tmp_path), test="val")
    assert dataset.train_labels.tolist() == [0, 1]
    assert dataset.test_labels.tolist() == [0, 1, 1]


def test_resize(folder):
    write(folder / "train" / "ant" / "1.png", 5, side=(8, 8))
    with pytest.raises(
        ValueError,
        match=r"images must have one size, but .*ant/0.png is 4 x 6 and .*ant/1.png is 8 x 8; choose one with resize",
    ) as caught:
        data.image_folder(str(folder))
    assert "\n" not in str(caught.value)
    dataset = data.image_folder(str(folder), resize=(5, 7))
    assert dataset.train_images.shape == (9, 5, 7, 3)
    assert data.image_folder(str(folder), resize=4).image_shape == (4, 4, 3)
    # A mean survives antialiased shrinking, roughly.
    small = data.image_folder(str(folder), resize=1).train_images[1]
    large = write(folder / "again.png", 5, side=(8, 8))
    assert abs(float(small.mean()) - large.mean()) < 25


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: (f / "train" / "bee" / "x.exe").write_text("x"),
            r"bee/x.exe is no image: images end in .png",
        ),
        (
            lambda f: (f / "train" / "bee" / "0.png").write_text("x"),
            r"bee/0.png is no readable image",
        ),
        (
            lambda f: (f / "train" / "bee" / "0.png").write_bytes(
                (f / "train" / "bee" / "0.png").read_bytes()[:60]
            ),
            r"bee/0.png is no readable image",
        ),
        (
            lambda f: [(f / "test" / "bee" / n).unlink() for n in ("0.png", "1.png")],
            r"test/bee holds no images",
        ),
        (
            lambda f: (f / "test" / "bee").rename(f / "bee"),
            r"test lacks the class bee of the other part",
        ),
        (
            lambda f: (f / "train" / "bee").rename(f / "bee"),
            r"train lacks the class bee of the other part",
        ),
        (lambda f: [(f / "train" / n).rename(f / n) for n in CLASSES], r"train holds no classes"),
        (lambda f: (f / "train").rename(f / "training"), r"train is no folder"),
    ],
    ids=[
        "other file",
        "no image",
        "cut short",
        "empty class",
        "no test class",
        "no train class",
        "no classes",
        "no folder",
    ],
)
def test_what_is_wrong_is_named(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        data.image_folder(str(folder))
    assert "\n" not in str(caught.value)


def test_a_folder_as_a_source(folder):
    source = data.folder_source(str(folder), split="test", resize=3)
    assert len(source) == 6
    assert source[5]["image"].shape == (3, 3, 3)
    assert int(source[5]["label"]) == 2
