"""Sets written by TFDS itself in a temporary folder, read back without TensorFlow."""

import errno
import importlib.util
import io
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust import data

tf = None  # a builder's module has TensorFlow under this name
without_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
TRAIN, TEST = 24, 8


def pixels(number: int, side: int = 5) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3)).astype(np.uint8)


def png(image: np.ndarray) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


class TinyColours(tfds.core.GeneratorBasedBuilder):
    """Yields PNG files: TFDS writes it without TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # TFDS would look for checksums of downloads beside this file

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(5, 5, 3)),
            "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, TRAIN),
            "test": self._generate_examples(TRAIN, TEST),
        }

    def _generate_examples(self, start, count):
        for number in range(start, start + count):
            yield number, {"image": self.image(number), "label": number % 3}

    def image(self, number):
        return png(pixels(number))


class TinyArrays(TinyColours):
    """Yields arrays, as the stock builders of CIFAR and SVHN do: TFDS alone needs TensorFlow."""

    def image(self, number):
        return pixels(number)


class TinyUnequal(TinyColours):
    """Images of two sizes."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def image(self, number):
        return png(pixels(number, side=5 + number % 2))


class TinyWords(TinyColours):
    """Has no images."""

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=3)}
            )
        )

    def _generate_examples(self, start, count):
        for number in range(start, start + count):
            yield number, {"text": "x", "label": 0}


class TinyTensorflow(TinyColours):
    """Calls TensorFlow itself, as the stock builder of MNIST does."""

    def _generate_examples(self, start, count):
        yield start, {"image": self.image(start), "label": int(tf.constant(1))}


class TinyFull(TinyColours):
    """Runs out of room halfway."""

    def _generate_examples(self, start, count):
        yield start, {"image": self.image(start), "label": 0}
        raise OSError(errno.ENOSPC, "No space left on device")


class TinyInterrupted(TinyColours):
    """Is interrupted halfway."""

    def _generate_examples(self, start, count):
        yield start, {"image": self.image(start), "label": 0}
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyColours, TinyUnequal, TinyWords):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A copy that a test may spoil."""
    return pathlib.Path(shutil.copytree(prepared, tmp_path / "data"))


def check(dataset: data.Dataset) -> None:
    """The set has exactly the images and labels that were written, in TFDS's order."""
    assert dataset.train_images.shape == (TRAIN, 5, 5, 3)
    assert dataset.test_images.shape == (TEST, 5, 5, 3)
    assert dataset.num_classes == 3
    written = {pixels(n).tobytes(): n % 3 for n in range(TRAIN + TEST)}
    seen = []
    for part in ("train", "test"):
        for image, label in zip(
            getattr(dataset, f"{part}_images"), getattr(dataset, f"{part}_labels"), strict=True
        ):
            assert written[image.tobytes()] == label
            seen.append(image.tobytes())
    assert set(seen) == set(written)


def test_a_set_that_tfds_wrote_is_read_back(prepared):
    check(data.tfds("tiny_colours", data_dir=str(prepared), cache=False))


def test_class_names_are_those_of_tfds(prepared):
    names = ("red", "green", "blue")
    for stream in (False, True):
        dataset = data.tfds("tiny_colours", data_dir=str(prepared), cache=False, stream=stream)
        assert dataset.class_names == names
    source = data.tfds_source("tiny_colours", split="test", data_dir=str(prepared))
    assert source.class_names == names


def test_arrays_that_were_decoded_in_another_way_are_not_taken(data_dir, monkeypatch):
    options = {"data_dir": str(data_dir), "resize": (3, 4)}
    with monkeypatch.context() as patch:
        patch.setattr("jaxrobust.data._tfds.DECODING", 1)
        squashed = np.zeros((TRAIN, 3, 4, 3), np.uint8), np.zeros(TRAIN, np.int32)
        patch.setattr("jaxrobust.data._tfds.in_memory", lambda source: squashed)
        assert not data.tfds("tiny_colours", **options).train_images.any()
    fresh = data.tfds("tiny_colours", **options)
    np.testing.assert_array_equal(
        fresh.train_images, data.tfds("tiny_colours", cache=False, **options).train_images
    )
    assert fresh.train_images.any()


def test_slices_and_the_environment_variable(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    dataset = data.tfds(
        "tiny_colours:1.0.0", train_split="train[:10]", test_split="train[10:]", cache=False
    )
    assert len(dataset.train_labels) == 10
    assert len(dataset.test_labels) == TRAIN - 10


def test_neither_reading_nor_preparing_imports_tensorflow(data_dir):
    code = (
        "import sys; from jaxrobust import data; "
        f"print(len(data.tfds('tiny_colours', data_dir={str(data_dir)!r}).train_labels), 'tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(TRAIN), "False"]


def test_decoded_arrays_are_kept_until_the_set_changes(data_dir, monkeypatch):
    first = data.tfds("tiny_colours", data_dir=str(data_dir))
    kept = sorted((data_dir / "jaxrobust_decoded").iterdir())
    assert len(kept) == 2

    with monkeypatch.context() as patch:
        patch.setattr("jaxrobust.data._tfds.in_memory", lambda source: pytest.fail("decoded again"))
        again = data.tfds("tiny_colours", data_dir=str(data_dir))
    np.testing.assert_array_equal(first.train_images, again.train_images)

    kept[0].write_bytes(kept[0].read_bytes()[:-200])  # damaged: decoded and written again
    check(data.tfds("tiny_colours", data_dir=str(data_dir)))
    assert sorted((data_dir / "jaxrobust_decoded").iterdir()) == kept
    (data_dir / "tiny_colours" / "1.0.0" / "dataset_info.json").touch()  # prepared anew
    check(data.tfds("tiny_colours", data_dir=str(data_dir)))
    assert len(list((data_dir / "jaxrobust_decoded").iterdir())) == 4


def test_a_full_disk_only_costs_the_cache(data_dir, monkeypatch):
    def full(file, **arrays):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match="the decoded images are not kept: no room on the disk"):
        check(data.tfds("tiny_colours", data_dir=str(data_dir)))
    assert not list((data_dir / "jaxrobust_decoded").iterdir())  # and nothing half-written


def test_a_set_is_prepared_on_first_use_without_tensorflow(tmp_path):
    check(data.tfds("tiny_arrays", data_dir=str(tmp_path)))
    found = tfds.builder("tiny_arrays", data_dir=tmp_path)
    assert found.is_prepared()
    assert found.info.file_format.value == "array_record"
    assert found.info.splits["train"].num_examples == TRAIN


def test_the_stock_cifar10_builder_prepares_without_tensorflow(tmp_path, offline):
    archive = tmp_path / "archive" / "cifar-10-batches-bin"
    archive.mkdir(parents=True)
    records = np.random.default_rng(0).integers(0, 256, (6, 4, 3073)).astype(np.uint8)
    records[..., 0] %= 10
    for number, content in enumerate(records):
        name = "test_batch.bin" if number == 5 else f"data_batch_{number + 1}.bin"
        (archive / name).write_bytes(content.tobytes())
    (archive / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)))
    offline(str(archive.parent))
    dataset = data.tfds("cifar10", data_dir=str(tmp_path / "data"))
    assert dataset.num_classes == 10
    planes = records[:5, :, 1:].reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    wanted = {i.tobytes(): k for i, k in zip(planes, records[:5, :, 0].ravel(), strict=True)}
    assert {
        i.tobytes(): k for i, k in zip(dataset.train_images, dataset.train_labels, strict=True)
    } == wanted


def test_images_of_several_sizes_need_resize(prepared):
    with pytest.raises(
        ValueError, match=r"one size, but tiny_unequal/train example 0 is \d x \d and .* resize="
    ):
        data.tfds("tiny_unequal", data_dir=str(prepared), cache=False)
    dataset = data.tfds("tiny_unequal", data_dir=str(prepared), resize=(4, 6), cache=False)
    assert dataset.train_images.shape == (TRAIN, 4, 6, 3)
    with pytest.raises(ValueError, match="resize must be a number of pixels"):
        data.tfds("tiny_unequal", data_dir=str(prepared), resize=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "tiny_colourz",
            {},
            r"no data set 'tiny_colourz' and data_dir .* holds tiny_colours, .*did you mean tiny_colours",
        ),
        (
            "tiny_arrays",
            {"download": False},
            r"tiny_arrays is not prepared below data_dir .*, which holds tiny_colours",
        ),
        (
            "tiny_colours",
            {"test_split": "validation"},
            r"has no split 'validation'; it has \w+, \w+",
        ),
        ("tiny_colours:7.0.0", {}, r"cannot open tiny_colours:7.0.0"),
        ("tiny_words", {}, r"tiny_words is no image classification set: its features are "),
    ],
)
def test_wrong_names_splits_and_folders(prepared, name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.tfds(name, data_dir=str(prepared), cache=False, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(
        ValueError, match=r"not prepared below data_dir .*nowhere, which does not exist"
    ):
        data.tfds("mnist", data_dir=str(tmp_path / "nowhere"), download=False)


def test_no_network_is_said_at_once(tmp_path, monkeypatch):
    def unknown(*args):
        raise OSError("Name or service not known")

    monkeypatch.setattr("jaxrobust.data._tfds_prepare.socket.getaddrinfo", unknown)
    monkeypatch.setattr("jaxrobust.data._tfds_prepare.getproxies", dict)
    with pytest.raises(
        ValueError, match=r"cannot prepare mnist .*: no network: .* is not found; data.mnist\(\)"
    ):
        data.tfds("mnist", data_dir=str(tmp_path))


@without_tensorflow
def test_a_builder_that_needs_tensorflow_says_what_to_do(tmp_path):
    with pytest.raises(
        ValueError, match=r"needs TensorFlow .* `tfds build tiny_tensorflow --data_dir="
    ) as caught:
        data.tfds("tiny_tensorflow", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_no_room_while_preparing(tmp_path):
    with pytest.raises(ValueError, match=r"no room on the disk of .* for tiny_full") as caught:
        data.tfds("tiny_full", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not tfds.builder("tiny_full", data_dir=tmp_path).is_prepared()


def test_an_interrupted_preparation_does_not_read_as_complete(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        data.tfds("tiny_interrupted", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="not prepared"):
        data.tfds("tiny_interrupted", data_dir=str(tmp_path), download=False)


@pytest.mark.parametrize("spoil", ["truncate", "remove", "noise"])
def test_a_damaged_set(data_dir, spoil):
    shard = next((data_dir / "tiny_colours").rglob("*train.array_record*"))
    content = shard.read_bytes()
    if spoil == "remove":
        shard.unlink()
    elif spoil == "truncate":
        shard.write_bytes(content[: len(content) // 2])
    else:
        shard.write_bytes(bytes(reversed(content)))
    with pytest.raises(
        ValueError, match=r"tiny_colours/1.0.0 is damaged .*delete it and prepare it again"
    ) as caught:
        data.tfds("tiny_colours", data_dir=str(data_dir))
    assert "\n" not in str(caught.value)


def test_damaged_metadata(data_dir):
    info = data_dir / "tiny_colours" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text()[:50])
    with pytest.raises(ValueError, match="cannot open tiny_colours in .*") as caught:
        data.tfds("tiny_colours", data_dir=str(data_dir))
    assert "\n" not in str(caught.value)


def test_a_streamed_set_is_the_one_in_memory(prepared):
    whole, streamed = (
        data.tfds("tiny_colours", data_dir=prepared, stream=s) for s in (False, True)
    )
    assert (streamed.name, streamed.num_classes) == (whole.name, whole.num_classes)
    assert streamed.image_shape == whole.image_shape
    batches = data.Stream(streamed.source, lambda step: streamed.indices)
    images, labels = next(batches)
    batches.close()
    np.testing.assert_array_equal(images, whole.train_images)
    np.testing.assert_array_equal(labels, whole.train_labels)
    np.testing.assert_array_equal(streamed.floats("test")[0], whole.floats("test")[0])


def test_a_source_decodes_on_demand(prepared):
    source = data.tfds_source("tiny_colours", split="test", data_dir=str(prepared))
    assert len(source) == TEST
    example = source[3]
    assert example["image"].shape == (5, 5, 3)
    assert example["label"].dtype == np.int32
    with pytest.raises(IndexError):
        source[TEST]


@pytest.fixture
def offline(monkeypatch):
    """Downloads give what a test puts in their place: `{url or key: path}` as it is."""

    def serve(answer):
        monkeypatch.setattr("jaxrobust.data._tfds_prepare._check_network", lambda *args: None)
        for method in ("download", "download_and_extract"):
            monkeypatch.setattr(tfds.download.DownloadManager, method, lambda self, urls: answer)

    return serve


def test_the_stock_svhn_builder_prepares_without_tensorflow(tmp_path, offline):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    parts = {}
    for part in ("train", "test"):
        parts[part] = (
            rng.integers(0, 256, (32, 32, 3, 7)).astype(np.uint8),
            rng.integers(1, 11, (7, 1)),
        )
        savemat(
            tmp_path / f"{part}.mat", {"X": parts[part][0], "y": parts[part][1].astype(np.uint8)}
        )
    offline(
        {part: str(tmp_path / f"{part.replace('extra', 'test')}.mat") for part in (*parts, "extra")}
    )
    dataset = data.tfds("svhn_cropped", data_dir=str(tmp_path / "data"))
    images, labels = parts["test"]
    wanted = {images[..., n].tobytes(): labels[n, 0] % 10 for n in range(7)}
    found = zip(dataset.test_images, dataset.test_labels, strict=True)
    assert {image.tobytes(): label for image, label in found} == wanted


def test_the_stock_mnist_builder_prepares_without_tensorflow(tmp_path, offline, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 5)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 5)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
    with_headers = {"data": bytes(16) + images.tobytes(), "labels": bytes(8) + bytes(range(5))}
    for name, content in with_headers.items():
        (tmp_path / name).write_bytes(content)
    offline(
        {
            f"{part}_{kind}": str(tmp_path / kind)
            for part in ("train", "test")
            for kind in with_headers
        }
    )
    dataset = data.tfds("mnist", data_dir=str(tmp_path / "sets"))
    order = np.argsort(dataset.train_labels)
    np.testing.assert_array_equal(dataset.train_images[order], images)


@without_tensorflow
def test_the_module_of_a_builder_is_left_as_it_was(tmp_path, offline):
    from tensorflow_datasets.image_classification import cifar

    before = cifar.tf
    offline(str(tmp_path))  # holds no archive
    with pytest.raises(
        ValueError, match=r"cannot prepare cifar100 .*; data.cifar100\(\) needs no TFDS"
    ):
        data.tfds("cifar100", data_dir=str(tmp_path / "data"))
    assert cifar.tf is before
