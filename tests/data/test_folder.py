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
    assert not getattr(caught.value, "__notes__", [])
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
    assert not getattr(caught.value, "__notes__", [])


def test_a_folder_as_a_source(folder):
    source = data.folder_source(str(folder), split="test", resize=3)
    assert len(source) == 6
    assert source[5]["image"].shape == (3, 3, 3)
    assert int(source[5]["label"]) == 2


def solid(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (value,) * 3).save(path)


@pytest.mark.parametrize("stream", [False, True])
def test_numbers_are_classes_in_numeric_order(tmp_path, stream):
    for part in ("train", "test"):
        for number in range(12):
            solid(tmp_path / part / str(number) / "0.png", number)
    dataset = data.image_folder(str(tmp_path), stream=stream)
    assert dataset.class_names == tuple(map(str, range(12)))
    assert dataset.test_labels.tolist() == dataset.test_images[:, 0, 0, 0].tolist() == [*range(12)]
    source = data.folder_source(str(tmp_path))
    assert [int(example["label"]) for example in source] == [*range(12)]
    solid(tmp_path / "train" / "other" / "0.png", 0)  # one name that is none: the alphabet's order
    names = data.folder_source(str(tmp_path)).class_names
    assert names == ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9", "other")


def test_numbers_with_zeros_in_front(tmp_path):
    for name in ("010", "9", "09", "1"):
        solid(tmp_path / "train" / name / "0.png", 0)
    assert data.folder_source(str(tmp_path)).class_names == ("1", "09", "9", "010")


def test_class_names_are_the_folders(folder):
    for stream in (False, True):
        dataset = data.image_folder(str(folder), stream=stream)
        assert dataset.class_names == CLASSES
        assert [part.class_names for part in dataset.held_out(2)] == [CLASSES, CLASSES]
    sets = [data.folder_source(str(folder), split=split) for split in ("train", "test")]
    assert data.streamed(*sets).class_names == CLASSES
    (folder / "test" / "bee").rename(folder / "test" / "wasp")
    other = data.folder_source(str(folder), split="test")  # ant, cat, wasp: other numbers
    with pytest.raises(ValueError, match=r"class 1 is 'bee' in .* and 'cat' in "):
        data.streamed(sets[0], other)


def test_what_other_programs_leave_is_passed_over(folder):
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        solid(folder / "train" / name / "0.png", 0)
        solid(folder / "train" / "bee" / name / "0.png", 0)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "notes.TXT", "Desktop.INI"):
        (folder / "train" / "bee" / name).write_bytes(b"x")
    dataset = data.image_folder(str(folder))
    assert dataset.class_names == CLASSES
    assert dataset.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("name", ["x.jfif", "x.JPG", "x.JPEG", "x.Png", "x.pnm", "x.TIF", "x.webp"])
def test_endings_of_images(folder, name):
    kind = {"x.Png": "PNG", "x.pnm": "PPM", "x.TIF": "TIFF", "x.webp": "WEBP"}.get(name, "JPEG")
    Image.new("RGB", (6, 4)).save(folder / "train" / "bee" / name, kind)
    assert len(data.image_folder(str(folder)).train_labels) == 10


def test_parts_of_two_sizes(folder):
    for name in CLASSES:
        for number in range(2):
            write(folder / "test" / name / f"{number}.png", 0, side=(5, 6))
    for stream in (False, True):
        with pytest.raises(ValueError, match=r"one size, .*resize=\(height, width\)"):
            data.image_folder(str(folder), stream=stream)


def test_one_class_and_other_mistakes(folder):
    for part in ("train", "test"):
        for name in CLASSES[1:]:
            (folder / part / name).rename(folder / f"{part}_{name}")
    with pytest.raises(ValueError, match=r"train holds one class, ant: it must hold at least two"):
        data.image_folder(str(folder))
    for channels in (2, 0, True, 3.0, "3"):
        with pytest.raises(ValueError, match=f"channels must be .*, got {channels!r}"):
            data.image_folder(str(folder), channels=channels)


def test_annotations_without_a_class(folder):
    (folder / "train" / "val_annotations.txt").write_text("val_0.JPEG n01")
    with pytest.raises(
        ValueError, match=r"must be a file, a tab and a class, got 'val_0.JPEG n01'"
    ):
        data.folder_source(str(folder))


def test_a_link_to_a_folder_above_is_not_followed(folder):
    (folder / "train" / "bee" / "up").symlink_to(folder / "train", target_is_directory=True)
    assert len(data.image_folder(str(folder)).train_labels) == 9


def test_a_file_that_is_gone_when_it_is_read(folder):
    source = data.folder_source(str(folder))
    (folder / "train" / "bee" / "0.png").unlink()
    batches = data.stream(source, batch_size=9)
    with pytest.raises(ValueError, match=r"bee/0.png cannot be read: No such file") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])


def test_a_damaged_file_is_named_by_a_stream_too(folder):
    spoiled = folder / "train" / "bee" / "0.png"
    spoiled.write_bytes(spoiled.read_bytes()[:60])
    batches = data.Stream(data.folder_source(str(folder)), lambda step: [0, 1, 2 + step])
    assert next(batches)[1].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"bee/0.png is no readable image: ") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])
    batches.close()


def test_a_source_checks_what_it_is_made_of():
    def read(indices):
        return [data_record(5) for _ in indices]

    def data_record(label):
        from jaxrobust.data._sources import Record

        return Record(b"", label, "it")

    good = {"name": "mine", "num_classes": 3, "size": 2, "read": read}
    for bad, message in (
        ({"num_classes": 1}, "mine: num_classes must be an integer of at least 2, got 1"),
        ({"size": -1}, "mine: size must be an integer of at least 0, got -1"),
        ({"channels": 2}, "mine: channels must be one of 1, 3, 4, got 2"),
        ({"resize": 0}, "mine: resize must be a number of pixels"),
        ({"max_value": 256}, r"mine: max_value must be an integer in 1\.\.255, got 256"),
        ({"class_names": ("a",)}, "mine: class_names must be 3 words"),
    ):
        with pytest.raises(ValueError, match=message):
            data.Source(**good | bad)
    assert data.Source(**good | {"resize": 7}).resize == (7, 7)
    with pytest.raises(ValueError, match=r"mine: labels must be in 0\.\.2, got values from 5 to 5"):
        data.Source(**good).labels(read([0]))


def test_a_streamed_set_checks_what_it_is_made_of(folder):
    Image.new("RGB", (6, 4)).save(folder / "train" / "ant" / "0.png")  # black: any scale
    sets = [data.folder_source(str(folder), split=split) for split in ("train", "test")]
    whole = data.streamed(*sets)
    fields = {f: getattr(whole, f) for f in whole.__dataclass_fields__}
    for bad, message in (
        ({"indices": np.array([0, 9])}, r"indices must be in 0\.\.8, got values from 0 to 9"),
        ({"indices": np.array([-1])}, r"indices must be in 0\.\.8, got values from -1 to -1"),
        ({"indices": np.zeros(0, int)}, "at least one training example"),
        ({"test_labels": whole.test_labels + 1}, r"test_labels must be in 0\.\.2"),
        ({"test_labels": whole.test_labels[:, None]}, r"use test_labels\[:, 0\]"),
        ({"test_images": whole.test_images / 255}, "test_images must be uint8"),
        ({"max_value": 0}, r"max_value must be an integer in 1\.\.255, got 0"),
        ({"max_value": 16}, r"must be at least 2\d\d, the largest of test_images, got 16"),
    ):
        with pytest.raises(ValueError, match=message):
            data.Streamed(**fields | bad)
    wide = data.Streamed(**fields | {"test_labels": whole.test_labels.astype(np.uint8)})
    assert wide.test_labels.dtype == np.int32
    # Training pixels above 1 are refused when they are read.
    dim = data.Streamed(**fields | {"max_value": 16, "test_images": whole.test_images // 16})
    with pytest.raises(ValueError, match=r"must be at least 2\d\d, the largest of .*png, got 16"):
        next(data.Stream(dim.source, lambda step: dim.indices))
