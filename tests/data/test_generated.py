"""Sets in one npz, and generated images mixed into batches."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import data


def images(count, side=(4, 5, 3), seed=0, top=255):
    return np.random.default_rng(seed).integers(0, top + 1, (count, *side)).astype(np.uint8)


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return str(tmp_path / "set.npz")

    return write


def test_an_npz_with_a_test_part(save):
    path = save(
        train_images=images(6, top=16),
        train_labels=np.arange(6) % 3,
        test_images=images(2, seed=1, top=16),
        test_labels=np.array([3, 0]),
    )
    dataset = data.npz(path, max_value=16)
    np.testing.assert_array_equal(dataset.test_images, images(2, seed=1, top=16))
    assert (dataset.name, dataset.num_classes, dataset.train_labels.dtype) == ("set", 4, np.int32)
    assert data.npz(path, num_classes=10, name="mine", max_value=16).num_classes == 10


def test_an_npz_without_one_holds_out(save):
    path = save(image=images(10, side=(4, 5)), label=np.arange(10) % 2)
    with pytest.raises(
        ValueError,
        match=r"has no test_images and test_labels: test_size, .* must be in 1\.\.9, got 0",
    ):
        data.npz(path)
    dataset = data.npz(path, test_size=3)
    assert dataset.image_shape == (4, 5, 1)
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (7, 3)
    together = np.concatenate([dataset.train_images, dataset.test_images])
    assert {i.tobytes() for i in together} == {i.tobytes() for i in images(10, side=(4, 5))}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": images(3)},
            r"needs train_images and train_labels \(or images and labels\); it has x",
        ),
        ({"images": images(3)}, r"needs images and labels; it has images"),
        (
            {"images": images(3) / 255, "labels": np.zeros(3, int)},
            r"set.npz: images must be uint8 \[n, h, w, c\], got float64 .*; use \(255 \* images\).round\(\).astype\(np.uint8\)",
        ),
        (
            {"images": images(3), "labels": np.zeros(3)},
            r"set.npz: labels must be integer class indices .* got float64 \(3,\); use labels.astype\(int\)",
        ),
        (
            {"images": images(3), "labels": np.zeros(4, int)},
            r"set.npz: images and labels must have the same batch size, got 3 images and labels of shape \(4,\)",
        ),
        ({"images": images(3), "labels": np.array([{}] * 3)}, r"is damaged or no npz: .*pickle"),
    ],
)
def test_what_is_wrong_with_an_npz_is_named(save, arrays, message):
    with pytest.raises(ValueError, match=message) as caught:
        data.npz(save(**arrays), test_size=1)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(ValueError, match=r"none.npz does not exist"):
        data.npz(str(tmp_path / "none.npz"))
    for number, content in enumerate([b"", b"PK\x03\x04 and no more", b"\x93NUMPY"]):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or no npz") as caught:
            data.generated(str(path))
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="single array"):
        data.generated(str(tmp_path / "one.npy"))


# ---- generated images --------------------------------------------------------------------------
def test_generated_images_follow_the_labelled_ones(save):
    digits = data.digits()
    extra = data.generated(
        save(image=images(5, side=(8, 8), top=16), label=np.arange(5, dtype=np.uint8)), fraction=0.5
    )
    joined, labels = extra.joined(digits)
    np.testing.assert_array_equal(joined[1437:], images(5, side=(8, 8, 1), top=16))
    np.testing.assert_array_equal(joined[:1437], digits.train_images)
    assert labels[-5:].tolist() == [0, 1, 2, 3, 4]
    assert labels.dtype == np.int32


def test_generated_images_must_fit(save):
    digits = data.digits()
    with pytest.raises(
        ValueError, match=r"generated images are \(4, 5, 3\), those of digits are \(8, 8, 1\)"
    ):
        data.generated(save(image=images(5), label=np.arange(5))).joined(digits)
    with pytest.raises(ValueError, match="generated labels go up to 10, but digits has 10 classes"):
        data.generated(save(image=images(2, side=(8, 8)), label=np.array([0, 10]))).joined(digits)
    with pytest.raises(
        ValueError, match="label must be class indices of at least 0, got values from -1 to 0"
    ):
        data.generated(save(image=images(2), label=np.array([-1, 0])))
    with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\), got 1"):
        data.generated(save(image=images(2), label=np.array([1, 0])), fraction=1.0)


def test_the_batches_of_score(key):
    order_of = jax.jit(
        lambda e: data.mixed_order(
            key, e, size=50_000, generated_size=1_000_000, batch_size=512, fraction=0.7
        )
    )
    order = np.asarray(order_of(0))
    assert order.shape == (98, 512)
    assert order.dtype == np.int32
    is_extra = order >= 50_000
    assert (is_extra.sum(1) == 358).all()
    labelled = order[~is_extra]
    assert len(set(labelled.tolist())) == 98 * 154  # without replacement
    assert labelled.min() >= 0
    extra = order[is_extra] - 50_000
    assert extra.min() >= 0
    assert extra.max() < 1_000_000
    # With replacement: 35,084 of a million meet about 615 times.
    repeats = extra.size - len(set(extra.tolist()))
    assert 500 < repeats < 740
    # Each of the eight devices of a mesh gets its share of both.
    shares = is_extra.reshape(98, 8, 64).sum(2)
    assert shares.min() > 20
    assert abs(shares.mean(0) - 358 / 8).max() < 2
    np.testing.assert_array_equal(order, order_of(0))
    assert (np.asarray(order_of(1)) != order).mean() > 0.99


def test_few_generated_images_need_more_than_one_pass(key):
    order = data.mixed_order(key, 3, size=10, generated_size=2, batch_size=4, fraction=0.0)
    assert order.shape == (3, 4)  # 12 labelled of 10: a second permutation
    assert sorted(set(order.ravel().tolist())) == list(range(10))
    order = data.mixed_order(key, 3, size=10, generated_size=2, batch_size=4, fraction=0.25)
    assert ((order >= 10).sum(1) == 1).all()
    assert order.max() <= 11


def test_the_order_runs_under_float64(float64, key):
    order = data.mixed_order(
        key, jnp.int32(0), size=10, generated_size=5, batch_size=4, fraction=0.5
    )
    assert order.dtype == jnp.int32


def test_what_is_wrong_with_an_order_is_named(key):
    good = {"size": 10, "generated_size": 5, "batch_size": 4, "fraction": 0.5}
    for bad, message in (
        ({"batch_size": 11}, "batch_size must be between 1 and the 10 training examples, got 11"),
        ({"generated_size": 0}, "generated_size must be an integer of at least 1, got 0"),
        ({"fraction": -0.1}, r"fraction must be in \[0, 1\), got -0.1"),
        ({"fraction": float("nan")}, r"fraction must be in \[0, 1\), got nan"),
        ({"fraction": 0.2}, r"fraction must be 0 or at least 1 / batch_size = 0.25, got 0.2"),
        ({"batch_size": True}, r"batch_size must be an integer of at least 1, got True"),
    ):
        with pytest.raises(ValueError, match=message):
            data.mixed_order(key, 0, **good | bad)


@pytest.mark.parametrize("shape", ["(999999999999, 2, 2, 1)", "(2, 999999999999, 2, 999999999)"])
def test_an_npz_that_announces_more_than_it_has_takes_no_memory(tmp_path, shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(9)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", array)
    with pytest.raises(ValueError, match=r"x\.npz is damaged or no npz: images\.npy has \d+ bytes"):
        data.npz(str(tmp_path / "x.npz"), test_size=1)


def test_an_npz_may_hold_what_is_no_array(tmp_path):
    np.savez(tmp_path / "x.npz", images=images(6), labels=np.arange(6) % 2)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("README.txt", "made by hand")
    assert len(data.npz(str(tmp_path / "x.npz"), test_size=2).train_labels) == 4
