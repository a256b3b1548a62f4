"""scikit-learn's handwritten digits: real images that come with the package."""

from collections.abc import Sequence

import numpy as np

from jaxrobust.data._class_names import DIGITS
from jaxrobust.data._dataset import Dataset


def digits(*, classes: Sequence[int] | None = None) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels with 17 grey levels, split 1,437 / 360.

    The split is a fixed permutation (NumPy's default generator, seed 0): the first 1,437 train,
    the last 360 test.

    Args:
      classes: the classes to keep, as in `Dataset.select`; default all.

    Returns:
      The data set; grey level 16 is 1.0.

    Raises:
      ValueError: if a class does not exist or is given twice.

    Example:
      >>> from jaxrobust import data
      >>> digits = data.digits()
      >>> digits.train_images.shape, digits.test_images.shape
      ((1437, 8, 8, 1), (360, 8, 8, 1))

    References:
      Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998.
    """
    # Imported here: scikit-learn takes a second to load.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.arange(len(bunch.target))
    np.random.default_rng(0).shuffle(order)
    images = bunch.images.astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    train, test = order[:1437], order[-360:]
    dataset = Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        num_classes=10,
        max_value=16,
        class_names=DIGITS,
    )
    return dataset if classes is None else dataset.select(classes)
