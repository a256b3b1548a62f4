"""Data: the split is fixed, the order is a function of (seed, epoch)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import augment, data


def test_digits_are_the_split_of_the_golden_models(golden):
    digits = data.digits()
    images, labels = digits.floats("test")
    stored = golden("digits_robust")
    np.testing.assert_array_equal(images, stored["x"])
    np.testing.assert_array_equal(labels, stored["y"])
    assert digits.train_images.shape == (1437, 8, 8, 1)
    assert digits.train_images.dtype == np.uint8
    joined = np.concatenate([digits.train_images, digits.test_images]).reshape(1797, -1)
    assert joined.max() == digits.max_value == 16


def test_the_order_of_an_epoch_is_a_permutation_that_the_key_decides(key):
    first = data.epoch_order(key, 0, size=10, batch_size=3)
    assert first.shape == (3, 3)
    assert len(set(first.ravel().tolist())) == 9
    again = jax.jit(lambda e: data.epoch_order(key, e, size=10, batch_size=3))(0)
    np.testing.assert_array_equal(first, again)
    assert not (first == data.epoch_order(key, 1, size=10, batch_size=3)).all()
    with pytest.raises(ValueError, match="batch_size must be between 1 and the 10"):
        data.epoch_order(key, 0, size=10, batch_size=11)


def test_held_out_examples_are_no_longer_trained_on():
    digits = data.digits()
    rest, validation = digits.held_out(100, seed=3)
    assert len(rest.train_labels) == 1337
    assert len(validation.test_labels) == 100
    np.testing.assert_array_equal(rest.test_images, digits.test_images)
    together = np.concatenate([rest.train_images, validation.test_images])
    assert sorted(im.tobytes() for im in together) == sorted(
        im.tobytes() for im in digits.train_images
    )
    with pytest.raises(ValueError, match="size must be between 0 and 1436"):
        digits.held_out(1437)


def test_a_data_set_checks_what_it_is_made_of():
    digits = data.digits()
    fields = {f: getattr(digits, f) for f in digits.__dataclass_fields__}
    with pytest.raises(ValueError, match="digits: train_images must be uint8"):
        data.Dataset(**fields | {"train_images": np.zeros((3, 8, 8, 1), np.float32)})
    with pytest.raises(ValueError, match=r"got 360 images and test_labels of shape \(3,\)"):
        data.Dataset(**fields | {"test_labels": np.zeros(3, np.int32)})
    with pytest.raises(ValueError, match=r"must be in 0\.\.4, got values from 0 to 9"):
        data.Dataset(**fields | {"num_classes": 5, "class_names": ()})


def test_augmentations_move_and_mirror(key):
    image = jnp.arange(16.0).reshape(4, 4, 1)
    crops = jax.vmap(lambda k: augment.pad_crop(pad=1)(k, image))(jax.random.split(key, 64))
    distinct = {tuple(c.ravel().tolist()) for c in crops}
    assert len(distinct) == 9
    assert tuple(image.ravel().tolist()) in distinct
    flips = jax.vmap(lambda k: augment.flip()(k, image))(jax.random.split(key, 64))
    assert {tuple(f.ravel().tolist()) for f in flips} == {
        tuple(image.ravel().tolist()),
        tuple(image[:, ::-1].ravel().tolist()),
    }
    with pytest.raises(ValueError, match="pad must be an integer of at least 0"):
        augment.pad_crop(pad=-1)
    with pytest.raises(ValueError, match="probability must be in"):
        augment.flip(probability=2.0)
