"""A network on given images: logits and verdicts, and checks of both."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust.evaluation._checks import check_batch_independence, check_labels_fit
from jaxrobust.evaluation._examples import buckets, over_examples
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.inputs import as_network_logits
from jaxrobust.verdicts import misclassified, predicted

Verdicts = tuple[np.ndarray, np.ndarray, np.ndarray]


def clean_batch(
    stochastic: bool, logits_fn: Any, images: Array, labels: Array, indices: Array
) -> tuple[Array, Array, Array]:
    """Logits, whether misclassified, and the prediction (-1 for NaN logits).

    A `stochastic` network is a `OneDraw`, whose noise goes by the indices in the data set.
    """
    logits = logits_fn(images, indices) if stochastic else logits_fn(images)
    logits = as_network_logits(logits, batch=len(images))
    return logits, misclassified(logits, labels), predicted(logits)


def forward(
    clean: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    shapes: list[int],
    *,
    indices: np.ndarray | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> Verdicts:
    """A compiled `clean_batch` over any number of images; `indices` default to all of the data."""
    places = (np.arange(len(labels)) if indices is None else indices).astype(np.int32)
    return over_examples(clean, None, places, images, labels, places, shapes=shapes, done=done)


def clean_pass(
    clean: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    shapes: list[int],
    *,
    done: Callable[[int], None] = lambda count: None,
) -> Verdicts:
    """`forward` over all the data, after checking that labels and batches fit the network.

    Raises:
      InputError: if one of the two does not fit.
    """
    logits, wrong, predictions = forward(clean, images, labels, shapes, done=done)
    check_labels_fit(labels, logits)
    first = next(buckets(len(labels), shapes, jax.process_count()))[2]
    check_batch_independence(
        lambda *batch: clean(*batch)[0], images, labels, logits, first, _another(first, shapes)
    )
    return logits, wrong, predictions


def _another(shape: int, shapes: list[int]) -> int:
    """Another batch shape: one that is compiled anyway, or half of `shape`."""
    smaller = [size for size in shapes if 2 <= size < shape]
    if smaller:
        return max(smaller)
    devices = len(jax.local_devices())
    half = -(-(shape // 2) // devices) * devices
    return half if 2 <= half < shape else shape + devices
