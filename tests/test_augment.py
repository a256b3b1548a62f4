"""Augmentations of single images and of batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrobust import augment


def test_cutout_blackens_a_square_that_is_cut_at_the_border(key):
    keys = jax.random.split(key, 200)
    images = jax.vmap(augment.cutout(size=3), (0, None))(keys, jnp.ones((6, 7, 2)))
    holes = np.asarray(images == 0)
    assert (holes[..., 0] == holes[..., 1]).all()
    areas = holes[..., 0].sum((1, 2))
    assert set(areas.tolist()) == {4, 6, 9}  # at a corner, at an edge, inside
    for hole in holes[..., 0]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert hole.sum() == len(rows) * len(columns)
        assert np.ptp(rows) < 3
        assert np.ptp(columns) < 3
    centres = {
        tuple(np.argwhere(h).mean(0)) for h, a in zip(holes[..., 0], areas, strict=True) if a == 9
    }
    assert len(centres) == 4 * 5  # every pixel off the border


def test_cutout_keeps_dtype_and_checks_its_size(key):
    assert augment.cutout(size=2)(key, jnp.ones((4, 4, 1), jnp.bfloat16)).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match="size must be at least 1 pixel, got 0"):
        augment.cutout(size=0)


def batch(size=16, side=(8, 10)):
    """Image i is filled with i, so that pixels say where they are from."""
    images = jnp.broadcast_to(jnp.arange(float(size))[:, None, None, None], (size, *side, 1))
    return images, jnp.eye(size)


def test_cutmix_mixes_labels_by_the_area_that_is_pasted(key):
    images, labels = batch()
    mix = jax.jit(augment.cutmix())
    shares = []
    for number in range(40):
        mixed, soft = mix(jax.random.fold_in(key, number), images, labels)
        # The share of pixels from image j in image i is the label's weight of class j.
        counts = (np.asarray(mixed)[..., None] == np.arange(16)).mean((1, 2, 3))
        np.testing.assert_allclose(soft, counts, atol=1e-6)
        pasted = np.asarray(mixed != images)[..., 0]
        moved = pasted[pasted.any((1, 2))]
        assert (moved == moved[:1]).all()  # one box for all images
        shares.append(moved[0].mean() if len(moved) else 0.0)
    assert min(shares) < 0.1
    assert max(shares) > 0.6


def test_cutmix_draws_a_box_per_part_and_partners_in_the_part(key):
    images, labels = batch()
    mixed, soft = augment.cutmix(parts=4)(key, images, labels)
    assert mixed.shape == images.shape
    assert soft.dtype == labels.dtype
    boxes = set()
    for part in range(4):
        where = slice(4 * part, 4 * part + 4)
        assert set(np.unique(mixed[where]).tolist()) <= set(range(4 * part, 4 * part + 4))
        boxes.add(np.asarray(mixed != images)[where].any(0).tobytes())
    assert len(boxes) > 1
    np.testing.assert_allclose(soft.sum(1), 1, atol=1e-6)


def test_cutmix_keeps_the_area_of_lambda_away_from_the_border(key):
    # Without cutting at the border the box has (1 - lambda) of the area; Beta(1, 1) has mean 1/2,
    # and cutting only takes away from it.
    images, labels = batch(size=2, side=(32, 32))
    keys = jax.random.split(key, 2000)
    mixed = jax.vmap(augment.cutmix(), (0, None, None))
    share = 2 * (1 - mixed(keys, images, labels)[1][:, 0, 0]).mean()  # half the permutations move
    # With side s = sqrt(u) of the image and a uniform centre, a span of s keeps s - s^2 / 4 of
    # it: E (s - s^2 / 4)^2 = 1/2 - 2/4 * E s^3 + E s^4 / 16 = 1/2 - 1/5 + 1/48.
    assert abs(share - (1 / 2 - 1 / 5 + 1 / 48)) < 0.03


def test_cutmix_with_a_large_alpha_pastes_about_half(key):
    images, labels = batch(size=2, side=(64, 64))
    mix = jax.jit(augment.cutmix(alpha=1e4))
    shares = [
        1 - float(mix(jax.random.fold_in(key, n), images, labels)[1][0, 0]) for n in range(40)
    ]
    # sqrt(1/2) * 64 = 45 pixels, cut at the border by at most half in each direction.
    assert all(share == 0 or 0.95 * (23 / 64) ** 2 <= share <= (46 / 64) ** 2 for share in shares)
    assert max(shares) > 0.4


def test_cutmix_checks_its_arguments(key):
    images, labels = batch(size=6)
    with pytest.raises(ValueError, match="alpha must be positive, got 0"):
        augment.cutmix(alpha=0.0)
    with pytest.raises(ValueError, match="parts must be at least 1, got 0"):
        augment.cutmix(parts=0)
    with pytest.raises(ValueError, match="a batch of 6 images has no 4 equal parts"):
        augment.cutmix(parts=4)(key, images, labels)


def test_augmentations_say_what_they_are_by_their_return_type():
    from typing import get_type_hints

    kinds = {
        name: get_type_hints(getattr(augment, name))["return"]
        for name in ("pad_crop", "flip", "cutout", "cutmix")
    }
    assert kinds.pop("cutmix") == augment.BatchAugmentation
    assert set(kinds.values()) == {augment.Augmentation}
