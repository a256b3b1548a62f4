"""Images of a pattern per class: for trying programs out, not for results."""

import numpy as np

from jaxrobust.data._dataset import Dataset
from jaxrobust.inputs import as_count, as_seed


def synthetic(
    *,
    size: int = 32,
    channels: int = 3,
    num_classes: int = 10,
    train: int = 512,
    test: int = 128,
    seed: int = 0,
) -> Dataset:
    """Random smooth patterns, one per class, with noise: learnable, of any size, without a file.

    For trying out a program before its data is there; results on it mean nothing.

    Args:
      size: height and width in pixels.
      channels: `c`.
      num_classes: number of classes `k`.
      train: training examples.
      test: test examples.
      seed: of patterns and noise.

    Returns:
      The data set.

    Raises:
      ValueError: if one of them is no integer, or too small.

    Example:
      >>> from jaxrobust import data
      >>> data.synthetic(size=8, train=4, test=2).train_images.shape
      (4, 8, 8, 3)
    """
    counts = {"size": size, "channels": channels, "train": train, "test": test}
    for name, count in counts.items():
        as_count(count, name=name)
    as_count(num_classes, name="num_classes", least=2)
    as_seed(seed)
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (num_classes, -(-size // 4), -(-size // 4), channels))
    patterns = coarse.repeat(4, 1).repeat(4, 2)[:, :size, :size]

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, num_classes, count).astype(np.int32)
        noise = rng.normal(0, 32, (count, size, size, channels))
        return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels

    train_images, train_labels = draw(train)
    test_images, test_labels = draw(test)
    return Dataset(
        name="synthetic",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        num_classes=num_classes,
    )
