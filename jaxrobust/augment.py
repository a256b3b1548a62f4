"""Augmentations: each call makes a function `(key, image [h, w, c]) -> image`, vmapped by users.

Those that mix examples make a `BatchAugmentation` of the whole batch. Images are floats in
[0, 1]; the functions are traceable and keep dtype and the shape of an image. Shapes and dtypes are
checked under `jit` too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust import inputs

Augmentation = Callable[[Array, Array], Array]
# (key, images [b, h, w, c], label probabilities [b, k]) -> images, label probabilities
BatchAugmentation = Callable[[Array, Array, Array], tuple[Array, Array]]


def pad_crop(*, pad: int = 4) -> Augmentation:
    """Zero-pads by `pad` pixels on every side and crops a random window of the old size.

    Args:
      pad: pixels, at least 0.

    Returns:
      `(key, image) -> image`.

    Raises:
      ValueError: if `pad` is no integer of at least 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> augment.pad_crop(pad=1)(jax.random.key(0), jnp.ones((8, 8, 1))).shape
      (8, 8, 1)
    """
    pad = inputs.as_count(pad, name="pad", least=0)

    def apply(key: Array, image: Array) -> Array:
        image = _as_image(image)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        row, column = jax.random.randint(key, (2,), 0, 2 * pad + 1)
        return jax.lax.dynamic_slice(padded, (row, column, jnp.zeros_like(row)), image.shape)

    return apply


def flip(*, probability: float = 0.5) -> Augmentation:
    """Mirrors the image left to right with the given probability.

    Args:
      probability: in [0, 1].

    Returns:
      `(key, image) -> image`.

    Raises:
      ValueError: if `probability` is not in [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> image = jnp.arange(2.0).reshape(1, 2, 1)
      >>> augment.flip(probability=1.0)(jax.random.key(0), image).ravel().tolist()
      [1.0, 0.0]
    """
    inputs.as_number(probability, name="probability", low=0, high=1)

    def apply(key: Array, image: Array) -> Array:
        image = _as_image(image)
        return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)

    return apply


def cutout(*, size: int = 8) -> Augmentation:
    """Blackens a square of `size` x `size` pixels around a random pixel, cut at the border.

    Args:
      size: pixels, at least 1.

    Returns:
      `(key, image) -> image`.

    Raises:
      ValueError: if `size` is no integer of at least 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> image = augment.cutout(size=1)(jax.random.key(0), jnp.ones((4, 4, 3)))
      >>> float(image.sum())
      45.0

    References:
      DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout,
      2017.
    """
    size = inputs.as_count(size, name="size")

    def apply(key: Array, image: Array) -> Array:
        image = _as_image(image)
        height, width = image.shape[:2]
        box, _ = _box(key, height, width, size, size)
        return jnp.where(box[..., None], jnp.zeros_like(image), image)

    return apply


def cutmix(*, alpha: float = 1.0, parts: int = 1) -> BatchAugmentation:
    """Pastes a random box of another image of the batch into every image, and mixes the labels.

    One box and one permutation serve all images of a part. The box has the share 1 - lambda of
    the image's area, lambda ~ Beta(alpha, alpha), before it is cut at the border; labels are
    mixed by the area that is left.

    Args:
      alpha: of the Beta distribution, positive; 1 is uniform.
      parts: equal parts of the batch, each with its own box and permutation (SCORE's CutMix
        batches of 512 are four copies of 128 images, mixed separately: 4 parts).

    Returns:
      `(key, images [b, h, w, c], labels [b, k]) -> (images, labels)` of the same shapes; labels
      are probabilities, one-hot before.

    Raises:
      ValueError: if `alpha` is not positive and finite, `parts` is no integer of at least 1, or the
        batch has no `parts` equal parts; from the function, if images or labels are not as above.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import augment
      >>> images, labels = jnp.ones((4, 8, 8, 3)), jnp.eye(4)
      >>> images, labels = augment.cutmix()(jax.random.key(0), images, labels)
      >>> images.shape, labels.sum(1).tolist()
      ((4, 8, 8, 3), [1.0, 1.0, 1.0, 1.0])

    References:
      Yun et al., CutMix, ICCV 2019, algorithm 1; Rebuffi et al., Data Augmentation Can Improve
      Robustness, NeurIPS 2021.
    """
    inputs.as_number(alpha, name="alpha", low=0, positive=True)
    parts = inputs.as_count(parts, name="parts")

    def once(key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        share_key, box_key, order_key = jax.random.split(key, 3)
        height, width = images.shape[1:3]
        if alpha == 1:  # the same distribution, and seconds less of compilation
            ratio = jnp.sqrt(jax.random.uniform(share_key))
        else:
            ratio = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
        sides = (jnp.floor(side * ratio).astype(jnp.int32) for side in (height, width))
        box, area = _box(box_key, height, width, *sides)
        partner = jax.random.permutation(order_key, len(images))
        mixed = jnp.where(box[None, ..., None], images[partner], images)
        share = (area / (height * width)).astype(labels.dtype)
        return mixed, (1 - share) * labels + share * labels[partner]

    def apply(key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        images, labels = inputs.as_images(images), _as_soft(labels, len(images))
        if len(images) % parts:
            raise inputs.InputError(f"a batch of {len(images)} images has no {parts} equal parts")
        split = [leaf.reshape(parts, -1, *leaf.shape[1:]) for leaf in (images, labels)]
        mixed, soft = jax.vmap(once)(jax.random.split(key, parts), *split)
        return mixed.reshape(images.shape), soft.reshape(labels.shape)

    return apply


def _as_image(image: Array) -> Array:
    """One image of a floating dtype, channels last."""
    if jnp.ndim(image) != 3 or not jnp.issubdtype(jnp.result_type(image), jnp.floating):
        raise inputs.InputError(
            f"image must be one floating-point image [h, w, c], got {jnp.result_type(image)} "
            f"{jnp.shape(image)}; use jax.vmap(augmentation)(keys, images) for a batch"
        )
    inputs.as_layout((1, *image.shape), name="image")
    return image


def _as_soft(labels: Array, batch: int) -> Array:
    """Label probabilities `[b, k]`."""
    floating = jnp.issubdtype(jnp.result_type(labels), jnp.floating)
    if jnp.ndim(labels) != 2 or len(labels) != batch or not floating:
        raise inputs.InputError(
            f"labels must be floating-point probabilities [b, k], here [{batch}, k], got "
            f"{jnp.result_type(labels)} {jnp.shape(labels)}; use jax.nn.one_hot(labels, k)"
        )
    return inputs.as_probabilities(labels)


def _box(
    key: Array, height: int, width: int, rows: Array | int, columns: Array | int
) -> tuple[Array, Array]:
    """A mask `[h, w]` of `rows` x `columns` around a uniform pixel, cut at the border; its area."""
    spans = []
    for number, (side, length) in enumerate(((height, rows), (width, columns))):
        centre = jax.random.randint(jax.random.fold_in(key, number), (), 0, side)
        start = centre - length // 2
        place = jnp.arange(side)
        spans.append((place >= start) & (place < start + length))
    inside = spans[0][:, None] & spans[1][None, :]
    return inside, jnp.sum(inside)
