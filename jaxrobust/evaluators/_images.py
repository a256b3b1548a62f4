"""The test images of an evaluation, and how results name a part of them."""

from typing import Any

import numpy as np

from jaxrobust.inputs import InputError, as_count


def check_images(images: int | None) -> None:
    """Refuses a number of images that is none."""
    if images is not None:
        as_count(images, name="images")


def first_images(dataset: Any, images: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The first test images, or all of them, and their labels.

    Raises:
      ValueError: if there are fewer than asked for.
    """
    found, labels = dataset.floats("test")
    if images is not None and images > len(labels):
        raise InputError(
            f"images must be between 1 and the {len(labels)} test images, got {images}"
        )
    return found[:images], labels[:images]


def suffix(images: int | None) -> str:
    """What a column's name ends with where only some images were taken."""
    return "" if images is None else f", {images} images"


def counts_by_class(
    labels: np.ndarray, classes: int, clean: np.ndarray, robust: np.ndarray
) -> dict[str, list[int]]:
    """Images of each class, those that are right, and those that are right under attack."""
    masks = {"images": np.ones(len(labels), bool), "clean": clean, "robust": robust & clean}
    return {k: np.bincount(labels[mask], minlength=classes).tolist() for k, mask in masks.items()}
