"""Arrays and arguments that would train silently on something else are refused in one line."""

import pathlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import data


def images(count=6, side=(8, 8, 3), top=255, seed=0):
    return np.random.default_rng(seed).integers(0, top + 1, (count, *side)).astype(np.uint8)


def make(**fields):
    parts = {"train_images": images(), "test_images": images(4, seed=1)}
    parts |= {"train_labels": np.arange(6) % 3, "test_labels": np.arange(4) % 3, "num_classes": 3}
    return data.Dataset(name="mine", **parts | fields)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return str(tmp_path / "set.npz")


def refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])


# Of 6 images; 3 classes. What is wrong, and what the message says.
LABELS = {
    "column": (np.arange(6)[:, None] % 3, r"got int64 \(6, 1\); use {}\[:, 0\]"),
    "one-hot": (np.eye(3, dtype=int)[np.arange(6) % 3], r"one-hot labels: use {}.argmax\(-1\)"),
    "floats": (np.arange(6) % 3 * 1.0, r"got float64 \(6,\); use {}.astype\(int\)"),
    "booleans": (np.arange(6) % 2 == 0, r"got bool \(6,\)"),
    "negative": (np.arange(6) - 1, r"got values from -1 to 4"),
    "twice": (np.arange(12) % 3, r"got 6 images and {} of shape \(12,\)"),
    "words": (np.array(list("abcabc")), r"integer class indices"),
}
IMAGES = {
    "channels first": (
        images(6, (3, 8, 8)),
        r"channels first: move them by .*transpose\(0, 2, 3, 1\)",
    ),
    "grey first": (images(6, (1, 8, 8)), r"looks like channels first"),
    "floats in [0, 1]": (images() / 255, r"got float64 .*; use \(255 \* images\)"),
    "floats to 255": (images().astype(np.float32), r"got float32 .*; use images.round\(\).astype"),
    "normalised": (images() / 64 - 2, r"got float64 .*; scale them to 0\.\.255 first"),
    "wide integers": (images().astype(np.int64), r"got int64 .*; use images.astype\(np.uint8\)"),
    "booleans": (images() > 100, r"got bool .*; use images.astype\(np.uint8\) with max_value=1"),
    "flat": (images(6, (192,)), r"must be uint8 \[n, h, w, c\], got uint8 \(6, 192"),
    "no pixels": (images(6, (8, 0, 3)), r"must have pixels, got shape \(6, 8, 0, 3\)"),
}


@pytest.mark.parametrize(("labels", "message"), LABELS.values(), ids=LABELS)
def test_labels_are_checked_everywhere(tmp_path, labels, message):
    for part, count in (("train", 6), ("test", 6)):
        fields = {f"{part}_images": images(count), f"{part}_labels": labels}
        refused(lambda f=fields: make(**f), "mine: .*" + message.format(f"{part}_labels"))
    path = save(tmp_path, images=images(), labels=labels)
    refused(lambda: data.npz(path, test_size=2), "set.npz: .*" + message.format("labels"))
    refused(lambda: data.generated(path), "set.npz: .*" + message.format("labels"))
    refused(
        lambda: data.Generated(images(), labels, 0.5),
        "generated images: .*" + message.format("labels"),
    )
    if len(labels) == 6:
        each = [{"image": i, "label": k} for i, k in zip(images(), labels, strict=True)]
        said = r"label of example \d must be one integer" if labels.ndim > 1 else "labels must be"
        refused(lambda: next(data.stream(each, batch_size=6)), said)


@pytest.mark.parametrize(("wrong", "message"), IMAGES.values(), ids=IMAGES)
def test_images_are_checked_everywhere(tmp_path, wrong, message):
    labels = np.arange(6) % 3
    for part in ("train", "test"):
        fields = {f"{part}_images": wrong, f"{part}_labels": labels}
        refused(lambda f=fields: make(**f), f"mine: {part}_images .*" + message)
    path = save(tmp_path, image=wrong, label=labels)
    refused(lambda: data.npz(path, test_size=2), "set.npz: image.*" + message)
    refused(lambda: data.generated(path), "set.npz: image.*" + message)
    refused(lambda: data.Generated(wrong, labels, 0.5), "generated images: images.*" + message)
    each = [{"image": i, "label": k} for i, k in zip(wrong, labels, strict=True)]
    refused(lambda: next(data.stream(each, batch_size=6)), "image")


def test_grey_images_need_their_channel():
    refused(
        lambda: make(train_images=images(6, (8, 8))),
        r"train_images must be uint8 \[n, h, w, c\], got uint8 \(6, 8, 8\); use images\[..., None\]",
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint64, np.int64, ">i4"])
def test_labels_of_any_width_become_int32(tmp_path, dtype):
    labels = (np.arange(6) % 3).astype(dtype)
    made = make(train_labels=labels)
    assert made.train_labels.dtype == np.int32
    assert made.held_out(2)[1].test_labels.dtype == np.int32
    path = save(tmp_path, images=images(), labels=labels)
    assert data.npz(path, test_size=2).train_labels.dtype == np.int32
    assert data.Generated(images(), labels, 0.5).labels.dtype == np.int32
    each = [{"image": i, "label": k} for i, k in zip(images(), labels, strict=True)]
    assert next(data.stream(each, batch_size=6))[1].dtype == np.int32


def test_more_than_256_classes_of_uint16():
    labels = np.array([0, 300, 700], np.uint16)
    made = make(train_images=images(3), train_labels=labels, num_classes=701)
    assert made.select([300, 700]).train_labels.tolist() == [0, 1]


def test_lists_and_jax_arrays_become_numpy():
    made = make(train_labels=[0, 1, 2, 0, 1, 2], train_images=jnp.asarray(images()))
    assert isinstance(made.train_images, np.ndarray)
    assert made.train_labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_sizes_and_counts_of_a_data_set():
    refused(
        lambda: make(test_images=images(4, (8, 9, 3))),
        r"mine: train_images and test_images must have one size, got shapes \(6, 8, 8, 3\) and",
    )
    refused(
        lambda: make(num_classes=1), "mine: num_classes must be an integer of at least 2, got 1"
    )
    refused(lambda: make(num_classes=True), "num_classes must be .*, got True")
    refused(lambda: make(num_classes=2), r"train_labels must be in 0\.\.1, got values from 0 to 2")
    for size in (-1, 1.5, True, 6):
        refused(lambda s=size: make().held_out(s), f"size must be .*, got {size}")
    refused(lambda: make().held_out(2, seed=-1), "seed must be an integer between 0 and .*, got -1")
    for classes in ([0], [0, 0], [0, 3], [0, -1], [0, True], [0, 1.5], 1, ["0", "1"], []):
        refused(
            lambda c=classes: make().select(c), r"classes must be at least two .* of 0\.\.2 of mine"
        )
    refused(lambda: make().floats("validation"), "part must be 'train' or 'test', got 'validation'")


# ---- scale -------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [0, -1, 256, 1.0, True, "255", None, float("nan")])
def test_max_value_is_an_integer_in_its_range(value):
    refused(lambda: make(max_value=value), r"mine: max_value must be an integer in 1\.\.255, got")


def test_no_image_is_above_1(tmp_path):
    refused(
        lambda: make(max_value=16),
        r"mine: max_value, the uint8 value that means 1.0, must be at least 255, the largest of train_images, got 16",
    )
    refused(lambda: make(train_images=images(top=16), max_value=16), "the largest of test_images")
    path = save(tmp_path, images=images(), labels=np.arange(6) % 3)
    refused(lambda: data.npz(path, test_size=2, max_value=254), "must be at least 255")
    assert make(max_value=np.int64(255)).floats("train")[0].max() == 1
    digits = data.digits()
    extra = data.Generated(images(6, (8, 8, 1)), np.arange(6), 0.5)
    refused(
        lambda: extra.joined(digits),
        "generated images go up to 255, but max_value of digits, .* is 16; bring them to its scale",
    )


@pytest.mark.parametrize("top", [1, 16, 63])
def test_an_npz_of_another_scale_is_refused_unless_it_is_named(tmp_path, top):
    dark = images(top=top)
    dark[0, 0, 0, 0] = top
    path = save(tmp_path, images=dark, labels=np.arange(6) % 3)
    refused(
        lambda: data.npz(path, test_size=2),
        f"set.npz: training images only reach {top}, but max_value, .* is 255; give the right one, such as max_value={top}",
    )
    whole = data.npz(path, test_size=2, max_value=top)
    assert max(whole.floats(part)[0].max() for part in ("train", "test")) == 1
    assert data.npz(path, test_size=2, max_value=255).max_value == 255


def test_many_dark_images_are_warned_of():
    dark = {"train_images": images(100, top=16), "train_labels": np.arange(100) % 3}
    with pytest.warns(UserWarning, match="train_images of mine only reach 16, but max_value"):
        make(**dark)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(**dark | {"test_images": images(4, top=16), "max_value": 16})
        make(train_images=images(top=16))  # a few may well be dark


# ---- npz ---------------------------------------------------------------------------------------
def test_labels_that_do_not_start_at_0_or_leave_classes_out(tmp_path):
    path = save(tmp_path, images=images(), labels=np.arange(6) % 3 + 1)
    refused(
        lambda: data.npz(path, test_size=2),
        r"set.npz: labels must be class indices 0\.\.k-1, got values from 1 to 3 without 0; renumber them, or give num_classes",
    )
    assert data.npz(path, test_size=2, num_classes=4).num_classes == 4
    path = save(tmp_path, images=images(), labels=np.arange(6) % 2 * 255)
    refused(lambda: data.npz(path, test_size=2), "got values from 0 to 255 without 1")
    path = save(tmp_path, images=images(), labels=np.zeros(6, int))
    refused(
        lambda: data.npz(path, test_size=2), "at least two classes, got 0 alone; give num_classes"
    )


def test_empty_parts_and_test_sizes(tmp_path):
    parts = {"train_images": images(), "train_labels": np.arange(6) % 3}
    for empty in ("train", "test"):
        arrays = parts | {"test_images": images(), "test_labels": np.arange(6) % 3}
        arrays |= {f"{empty}_images": images(0), f"{empty}_labels": np.zeros(0, int)}
        path = save(tmp_path, **arrays)
        refused(lambda p=path: data.npz(p), f"set.npz: {empty}_images must have at least one image")
    path = save(tmp_path, **parts)
    for size in (0, 6, 7):
        refused(
            lambda p=path, s=size: data.npz(p, test_size=s),
            rf"test_size, .* must be in 1\.\.5, got {size}",
        )
    for size in (-1, 1.5, True):
        refused(
            lambda p=path, s=size: data.npz(p, test_size=s), f"test_size must be .*, got {size}"
        )
    path = save(tmp_path, **parts, test_images=images(), test_labels=np.arange(6) % 3)
    refused(
        lambda: data.npz(path, test_size=2),
        "test_size must be 0, because .* has a test part, got 2",
    )


# ---- names of classes --------------------------------------------------------------------------
def test_class_names_are_kept():
    named = make(class_names=["ant", "bee", "cat"])
    assert named.class_names == ("ant", "bee", "cat")
    assert [part.class_names for part in named.held_out(2)] == [("ant", "bee", "cat")] * 2
    assert named.select([2, 0]).class_names == ("cat", "ant")
    assert make().class_names == make().select([0, 1]).class_names == ()
    for names in (["ant"], "ant", "abc", ["ant", "bee", 3], ["a", "b", "c", "d"]):
        refused(
            lambda n=names: make(class_names=n), "class_names must be 3 words, one for each class"
        )
    assert data.digits().class_names == tuple("0123456789")
    assert data.digits(classes=[3, 7]).class_names == ("3", "7")


# ---- other arguments ---------------------------------------------------------------------------
def test_counts_of_the_functions(key):
    refused(
        lambda: data.epoch_order(key, 0, size=10, batch_size=2.5), "batch_size must be .*, got 2.5"
    )
    refused(lambda: data.epoch_order(key, 0, size=True, batch_size=1), "size must be .*, got True")
    refused(lambda: data.mixed_steps(size=0, batch_size=1), "size must be .*, got 0")
    refused(lambda: data.indices_of_steps(lambda epoch: [], 0), "steps_per_epoch must be .*, got 0")
    for name in ("size", "channels", "train", "test", "num_classes", "seed"):
        refused(lambda n=name: data.synthetic(**{n: -1}), f"{name} must be .*, got -1")
        refused(lambda n=name: data.synthetic(**{n: True}), f"{name} must be .*, got True")
    for fraction in (1.0, -0.1, np.nan, True, "0.5"):
        refused(
            lambda f=fraction: data.Generated(images(), np.arange(6), f),
            r"fraction must be in \[0, 1\)",
        )


def test_arguments_of_streams():
    each = [{"image": np.zeros((2, 2, 1), np.uint8), "label": i} for i in range(8)]
    for bad, message in (
        ({"batch_size": True}, "batch_size must be .*, got True"),
        ({"batch_size": 2.0}, "batch_size must be .*, got 2.0"),
        ({"threads": 0}, "threads must be .*, got 0"),
        ({"seed": -1}, "seed must be .*, got -1"),
        ({"seed": 0.5}, "seed must be .*, got 0.5"),
        ({"seed": 2**32}, "seed must be an integer between 0 and 4294967295, got 4294967296"),
        ({"process_count": 0}, "process_count must be .*, got 0"),
        ({"process_index": -1}, "process_index must be .*, got -1"),
    ):
        refused(lambda b=bad: data.stream(each, **{"batch_size": 2} | b), message)
    refused(lambda: data.Stream(each, lambda step: [0], start=-1), "start must be .*, got -1")
    refused(
        lambda: data.Stream(each, lambda step: [0], steps_per_epoch=0), "steps_per_epoch must be"
    )
    for state in ({}, {"step": -1}, {"step": "3"}):
        batches = data.Stream(each, lambda step: [0])
        refused(lambda b=batches, s=state: b.set_state(s), r"state\['step'\] must be")
        batches.close()
    for indices, message in (
        (lambda step: [-1], r"indices must be in 0\.\.7, got values from -1"),
        (lambda step: [8], r"indices must be in 0\.\.7, got values from 8"),
        (lambda step: [0.5], r"indices must be integers \[n\], got float64 \(1,\)"),
        (lambda step: [], "indices must be of at least one example a step, got none in step 0"),
        (lambda step: [[0]], r"indices must be integers \[n\], got int64 \(1, 1\)"),
    ):
        refused(lambda i=indices: next(data.Stream(each, i)), message)


@pytest.mark.parametrize(
    ("example", "got"),
    [
        ({"img": 0, "label": 1}, "img, label"),
        ((0, 1), "tuple"),
        (3, "int"),
        ({"image": 0}, "image"),
    ],
)
def test_examples_of_another_form(example, got):
    refused(
        lambda: next(data.stream([example], batch_size=1)),
        rf"source\[0\] must be a dict with the keys image and label, got {got}$",
    )


def test_the_order_of_a_stream_does_not_depend_on_the_default_generator():
    each = [{"image": np.zeros((2, 2, 1), np.uint8), "label": i} for i in range(8)]
    labels = []
    for generator in ("threefry2x32", "rbg"):
        with jax.default_prng_impl(generator):
            batches = data.stream(each, batch_size=8, seed=3)
            labels.append(next(batches)[1].tolist())
            batches.close()
    order = data.epoch_order(jax.random.key(3), 0, size=8, batch_size=8)[0].tolist()
    assert labels == [order, order]


# ---- paths -------------------------------------------------------------------------------------
def test_a_tilde_is_the_home_directory_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path, images=images(), labels=np.arange(6) % 3)
    assert data.npz("~/set.npz", test_size=2).name == "set"
    assert len(data.generated("~/set.npz").labels) == 6
    refused(lambda: data.image_folder("~/none"), f"{tmp_path}/none/train is no folder")
    refused(lambda: data.folder_source("~/none"), f"{tmp_path}/none/train is no folder")
    refused(
        lambda: data.tfds("mnist", data_dir="~/none", download=False), f"data_dir {tmp_path}/none"
    )
    monkeypatch.setenv("TFDS_DATA_DIR", "~/other")
    refused(lambda: data.tfds("mnist", download=False), f"data_dir {tmp_path}/other")
    for path in (3, None, b"~/set.npz"):
        refused(lambda p=path: data.npz(p, test_size=2), "path must be a path, got")


def test_without_a_home_directory(tmp_path, monkeypatch):
    def none(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", none)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    for make_set in (data.cifar10, data.cifar100, data.mnist, lambda: data.tfds("mnist")):
        refused(
            make_set,
            "data_dir ~/tensorflow_datasets is in a home directory, and none is known; set HOME, or give data_dir without ~, or set TFDS_DATA_DIR",
        )
    refused(
        lambda: data.npz("~/set.npz"), "path ~/set.npz is in a home directory, and none is known"
    )


def test_an_array_under_two_names_is_told(tmp_path):
    path = tmp_path / "set.npz"
    pixels = np.zeros((9, 4, 4, 1), np.uint8)
    np.savez(path, images=pixels, image=pixels[:3], labels=np.arange(9) % 3)
    refused(lambda: data.npz(str(path), test_size=2), "one of images and image, .* both")


def test_a_fraction_is_one_number():
    made = np.zeros((4, 4, 4, 1), np.uint8), np.zeros(4, int)
    refused(lambda: data.Generated(*made, fraction=np.array([0.5, 0.5])), "fraction must be one")
