"""Generated extra images, and how batches mix them with the labelled ones."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.data._batches import checked_batch
from jaxrobust.data._dataset import Dataset
from jaxrobust.data._examples import as_examples, named, warn_of_dark
from jaxrobust.data._files import expanded, read_npz
from jaxrobust.data._npz import images_and_labels
from jaxrobust.data._streamed import Streamed
from jaxrobust.inputs import InputError, as_count, check_number


@dataclass(frozen=True, eq=False)
class Generated:
    """Generated images with their labels, and the fraction of each batch that is generated.

    A training loop concatenates them behind the labelled images (`joined`) and takes its
    batches from `mixed_order` instead of `epoch_order`.

    Attributes:
      images: `[n, h, w, c]` uint8.
      labels: `[n]` int32, of the model that generated or labelled them; other integers are
        converted.
      fraction: of each batch, in [0, 1).

    Raises:
      ValueError: in one line, if one of them is none of these.
    """

    images: np.ndarray
    labels: np.ndarray
    fraction: float

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        with named("generated images"):
            images, labels = as_examples(self.images, self.labels)
            if not len(labels):
                raise InputError(f"images must have at least one image, got shape {images.shape}")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def joined(self, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """The labelled training examples followed by the generated ones.

        Args:
          dataset: whose training part they extend (after holding out a validation set).

        Returns:
          Images `[size + generated_size, h, w, c]` uint8 and labels: what the indices of
          `mixed_order` count in.

        Raises:
          ValueError: if shapes, classes or scale differ from the data set's.
        """
        self.check_fits(dataset)
        images = np.concatenate([dataset.train_images, self.images])
        return images, np.concatenate([dataset.train_labels, self.labels])

    def check_fits(self, dataset: Dataset | Streamed) -> None:
        """Refuses images of another shape or scale than the data set's, and unknown classes.

        Raises:
          ValueError: in these cases.
        """
        if self.images.shape[1:] != dataset.image_shape:
            raise InputError(
                f"generated images are {self.images.shape[1:]}, "
                f"those of {dataset.name} are {dataset.image_shape}"
            )
        if self.labels.max() >= dataset.num_classes:
            raise InputError(
                f"generated labels go up to {self.labels.max()}, "
                f"but {dataset.name} has {dataset.num_classes} classes"
            )
        brightest = int(self.images.max())
        if brightest > dataset.max_value:
            raise InputError(
                f"generated images go up to {brightest}, but max_value of {dataset.name}, the "
                f"uint8 value that means 1.0, is {dataset.max_value}; bring them to its scale"
            )
        warn_of_dark(self.images, dataset.max_value, name="generated images")


def generated(path: str, *, fraction: float = 0.7) -> Generated:
    """Generated extra images from an npz, as the DDPM and EDM sets are published.

    Args:
      path: npz with `image` (or `images`) uint8 `[n, h, w, c]` and `label` (or `labels`) `[n]`.
      fraction: of each batch that is generated: `int(fraction * batch_size)` examples.

    Returns:
      `Generated`.

    Raises:
      ValueError: in one line, if the file is missing or damaged, lacks an array, or `fraction` is
        not in [0, 1).

    Example:
      >>> import os, tempfile
      >>> import numpy as np
      >>> from jaxrobust import data
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "extra.npz")
      ...     np.savez(path, image=np.zeros((9, 8, 8, 3), np.uint8), label=np.arange(9) % 3)
      ...     data.generated(path, fraction=0.3).images.shape
      (9, 8, 8, 3)

    References:
      Gowal et al., Improving Robustness using Generated Data, NeurIPS 2021; Pang et al.,
      Robustness and Accuracy Could Be Reconcilable by (Proper) Definition, ICML 2022, section 5.
    """
    check_fraction(fraction)
    file = expanded(path)
    arrays = read_npz(file)
    found = images_and_labels(file, arrays)
    if found is None:
        raise InputError(f"{file} needs image and label; it has {', '.join(arrays)}")
    return Generated(*found, fraction=fraction)


def check_fraction(fraction: float) -> None:
    """Refuses fractions that leave no labelled examples, or are none.

    Raises:
      InputError: if `fraction` is not in [0, 1).
    """
    if np.ndim(fraction):
        raise InputError(f"fraction must be one number, got shape {np.shape(fraction)}")
    check_number(fraction, "fraction must be in [0, 1),", low=0, high=float(np.nextafter(1, 0)))


def mixed_steps(*, size: int, batch_size: int) -> int:
    """Steps of an epoch with generated images: as many as the labelled ones alone would take.

    Args:
      size: number of labelled training examples.
      batch_size: examples per step, labelled and generated together.

    Returns:
      `ceil(size / batch_size)`: 98 for CIFAR-10 in batches of 512.

    Raises:
      ValueError: if one of them is no integer of at least 1.

    Example:
      >>> from jaxrobust import data
      >>> data.mixed_steps(size=50_000, batch_size=512)
      98
    """
    size, batch_size = as_count(size, name="size"), as_count(batch_size, name="batch_size")
    return -(-size // batch_size)


def mixed_order(
    key: Array,
    epoch: Array | int,
    *,
    size: int,
    generated_size: int,
    batch_size: int,
    fraction: float,
) -> Array:
    """The example indices of all batches of one epoch with generated images.

    Every batch holds `int(fraction * batch_size)` generated examples, drawn with replacement,
    and otherwise labelled ones, drawn without: from a permutation that is fresh every epoch (and
    followed by another one should an epoch need more than all of them). Places within a batch
    are shuffled, so that devices see alike shares of both.

    Args:
      key: PRNG key of the run's data order.
      epoch: 0-based, may be traced.
      size: number of labelled training examples.
      generated_size: number of generated examples.
      batch_size: examples per step, over all devices, both kinds together.
      fraction: of each batch that is generated, in [0, 1).

    Returns:
      `[ceil(size / batch_size), batch_size]` int32 into the labelled examples followed by the
      generated ones (`Generated.joined`): an index below `size` is labelled.

    Raises:
      ValueError: if `fraction` or `batch_size` is out of range, `fraction` of a batch is less than
        one example, or there are no generated examples.

    Example:
      >>> import jax
      >>> from jaxrobust import data
      >>> order = data.mixed_order(
      ...     jax.random.key(0), 0, size=100, generated_size=1000, batch_size=20, fraction=0.7)
      >>> order.shape, int((order >= 100).sum(1).min()), int((order >= 100).sum(1).max())
      ((5, 20), 14, 14)

    References:
      Pang et al., ICML 2022: 358 generated and 154 labelled CIFAR-10 images per batch of 512.
    """
    check_fraction(fraction)
    size, batch_size = checked_batch(size, batch_size)
    generated_size = as_count(generated_size, name="generated_size")
    steps = mixed_steps(size=size, batch_size=batch_size)
    drawn = int(fraction * batch_size)
    if fraction and not drawn:
        raise InputError(
            f"fraction must be 0 or at least 1 / batch_size = {1 / batch_size:g}, got {fraction}"
        )
    kept = batch_size - drawn
    keys = jax.random.split(jax.random.fold_in(key, epoch), 3)

    passes = -(-steps * kept // size)
    permutations = [
        jax.random.permutation(jax.random.fold_in(keys[0], number), size)
        for number in range(passes)
    ]
    labelled = jnp.concatenate(permutations)[: steps * kept].reshape(steps, kept)
    extra = size + jax.random.randint(keys[1], (steps, drawn), 0, generated_size)
    order = jnp.concatenate([labelled.astype(jnp.int32), extra.astype(jnp.int32)], axis=1)
    return jax.random.permutation(keys[2], order, axis=1, independent=True)
