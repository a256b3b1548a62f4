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
    with pytest.raises(ValueError, match="size must be an integer of at least 1, got 0"):
        augment.cutout(size=0)


def batch(size=16, side=(8, 10)):
    """Image i is filled with i / size, so that pixels say where they are from."""
    values = jnp.arange(float(size)) / size
    return jnp.broadcast_to(values[:, None, None, None], (size, *side, 1)), jnp.eye(size)


def test_cutmix_mixes_labels_by_the_area_that_is_pasted(key):
    images, labels = batch()
    mix = jax.jit(augment.cutmix())
    shares = []
    for number in range(40):
        mixed, soft = mix(jax.random.fold_in(key, number), images, labels)
        # The share of pixels from image j in image i is the label's weight of class j.
        counts = (16 * np.asarray(mixed)[..., None] == np.arange(16)).mean((1, 2, 3))
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
        assert set(np.unique(16 * mixed[where]).tolist()) <= set(range(4 * part, 4 * part + 4))
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
    with pytest.raises(ValueError, match="alpha must be above 0 and finite, got 0"):
        augment.cutmix(alpha=0.0)
    with pytest.raises(ValueError, match="parts must be an integer of at least 1, got 0"):
        augment.cutmix(parts=0)
    with pytest.raises(ValueError, match="a batch of 6 images has no 4 equal parts"):
        augment.cutmix(parts=4)(key, images, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.pad_crop(pad=-1), "pad must be an integer of at least 0, got -1"),
        (lambda: augment.pad_crop(pad=1.5), "pad must be an integer of at least 0, got 1.5"),
        (lambda: augment.pad_crop(pad=True), "pad must be an integer of at least 0, got True"),
        (lambda: augment.flip(probability=np.nan), r"probability must be in \[0, 1\], got nan"),
        (lambda: augment.flip(probability=-0.1), r"probability must be in \[0, 1\], got -0.1"),
        (lambda: augment.flip(probability="1"), r"probability must be in \[0, 1\], got '1'"),
        (lambda: augment.cutout(size=2.0), "size must be an integer of at least 1, got 2.0"),
        (lambda: augment.cutmix(alpha=np.nan), "alpha must be above 0 and finite, got nan"),
        (lambda: augment.cutmix(alpha=np.inf), "alpha must be above 0 and finite, got inf"),
        (lambda: augment.cutmix(parts=True), "parts must be an integer of at least 1, got True"),
    ],
)
def test_hyper_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ["pad_crop", "flip", "cutout"])
def test_images_are_checked(key, name, wrap):
    apply = wrap(getattr(augment, name)())
    for image, message in (
        (jnp.ones((2, 8, 8, 3)), r"got float32 \(2, 8, 8, 3\); use jax.vmap"),
        (jnp.ones((8, 8)), r"must be one floating-point image \[h, w, c\], got float32 \(8, 8\)"),
        (jnp.ones((8, 8, 3), jnp.uint8), r"got uint8 \(8, 8, 3\)"),
        (jnp.ones((3, 8, 8)), "looks like channels first"),
    ):
        with pytest.raises(ValueError, match=message):
            apply(key, image)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_batches_are_checked(key, wrap):
    mix = wrap(augment.cutmix())
    images, labels = jnp.ones((4, 8, 8, 3)), jnp.eye(4)
    for bad_images, bad_labels, message in (
        (
            images,
            jnp.arange(4),
            r"probabilities \[b, k\], here \[4, k\], got int32 \(4,\); use jax.nn.one_hot",
        ),
        (images, jnp.eye(4, dtype=int), r"probabilities .* got int32 \(4, 4\)"),
        (images, jnp.eye(5), r"here \[4, k\], got float32 \(5, 5\)"),
        (images[0], labels, r"images must be \[b, h, w, c\]"),
        ((255 * images).astype(jnp.uint8), labels, "divide uint8 by 255"),
        (images.transpose(0, 3, 1, 2), labels, "looks like channels first"),
    ):
        with pytest.raises(ValueError, match=message):
            mix(key, bad_images, bad_labels)
    with pytest.raises(ValueError, match="images must lie in"):
        augment.cutmix()(key, 2 * images, labels)
    with pytest.raises(ValueError, match="labels must be probabilities that sum to 1"):
        augment.cutmix()(key, images, 2 * labels)


def test_augmentations_say_what_they_are_by_their_return_type():
    from typing import get_type_hints

    kinds = {
        name: get_type_hints(getattr(augment, name))["return"]
        for name in ("pad_crop", "flip", "cutout", "cutmix")
    }
    assert kinds.pop("cutmix") == augment.BatchAugmentation
    assert set(kinds.values()) == {augment.Augmentation}
