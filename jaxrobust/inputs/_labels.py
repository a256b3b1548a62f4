"""Labels: class indices, or probabilities."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrobust.inputs._error import InputError, as_array, concrete


def as_labels(
    labels: Any,
    *,
    batch: int,
    classes: int | None = None,
    soft: bool = False,
    signed: bool = False,
    unlabelled: bool = False,
    name: str = "labels",
) -> Any:
    """Labels of a batch: class indices `[b]` as int32, or probabilities `[b, k]` if allowed.

    Args:
      labels: integers of any width; with `soft` also floats.
      batch: number of images `b`.
      classes: number of classes `k`, if it is known.
      soft: whether probabilities are allowed.
      signed: whether -1 and +1, of a classifier with one logit, are allowed.
      unlabelled: whether -1, of an example without a label, is allowed.
      name: of the argument, for the message.

    Returns:
      `[b]` int32 or `[b, k]` floating point; NumPy stays NumPy, JAX stays JAX.

    Raises:
      InputError: for another shape, length or dtype, or values that are no classes or no
        probabilities.
    """
    array = as_array(labels, name=name)
    wanted = f"integer class indices [b], here [{batch}]"
    if soft:
        wanted += f", or probabilities [b, k] of a floating dtype, here [{batch}, k]"
    if soft and array.ndim == 2 and jnp.issubdtype(array.dtype, jnp.floating):
        if len(array) != batch:
            raise _other_length(name, array, batch)
        return as_probabilities(array, classes=classes, name=name)
    if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(
            f"{name} must be {wanted}, got {array.dtype} {array.shape}{label_hint(name, array)}"
        )
    if len(array) != batch:
        raise _other_length(name, array, batch)
    if signed and is_signed(array):
        return array.astype(np.int32)
    return as_classes(array, classes=classes, unlabelled=unlabelled, name=name)


def is_signed(labels: Any) -> bool:
    """Whether labels may be -1 and +1: they are nothing else, or their values are not known yet.

    Args:
      labels: `[b]` integers.

    Returns:
      True or False.
    """
    values = concrete(labels)
    return values is None or bool(np.isin(values, (-1, 1)).all())


def as_classes(
    labels: Any, *, classes: int | None = None, unlabelled: bool = False, name: str = "labels"
) -> Any:
    """Class indices as int32: a narrower type cannot count to every class.

    Args:
      labels: `[...]` integers.
      classes: number of classes `k`, if it is known.
      unlabelled: whether -1 is allowed.
      name: of the argument, for the message.

    Returns:
      `[...]` int32; NumPy stays NumPy, JAX stays JAX.

    Raises:
      InputError: for another dtype, or values outside of 0..k-1.
    """
    array = as_array(labels, name=name)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(
            f"{name} must be integer class indices, got {array.dtype} {array.shape}"
            f"{label_hint(name, array)}"
        )
    values = concrete(array)
    if values is not None and values.size:
        low, high = int(values.min()), int(values.max())
        largest = np.iinfo(np.int32).max if classes is None else classes - 1
        if low < (-1 if unlabelled else 0) or high > largest:
            these = "class indices of at least 0" if classes is None else f"in 0..{classes - 1}"
            extra = " (or -1 for unlabelled)" if unlabelled else ""
            raise InputError(f"{name} must be {these}{extra}, got values from {low} to {high}")
    return array.astype(np.int32)


def as_probabilities(
    probs: Any, *, classes: int | None = None, rank: int = 1, name: str = "labels"
) -> Any:
    """Soft labels `[..., k]`: probabilities that sum to 1.

    Args:
      probs: floating point.
      classes: number of classes `k`, if it is known.
      rank: the least number of axes: that of the logits.
      name: of the argument, for the message.

    Returns:
      `[..., k]`.

    Raises:
      InputError: for another number of classes, or values that are no probabilities.
    """
    array = as_array(probs, name=name)
    if array.ndim < rank:
        raise InputError(
            f"{name} must be integers, or probabilities [..., k] of the logits' {rank} axes, "
            f"got {array.dtype} of shape {array.shape}{label_hint(name, array)}"
        )
    if classes is not None and array.shape[-1:] != (classes,):
        raise InputError(
            f"{name} must be probabilities [..., {classes}] of the same number of classes as the "
            f"logits, got shape {array.shape}"
        )
    values = concrete(array)
    if values is not None and values.size:
        numbers = values.astype(np.float64)
        slack = 4 * math.sqrt(array.shape[-1]) * float(jnp.finfo(array.dtype).eps) + 1e-5
        sums = numbers.sum(-1)
        if not (numbers.min() >= -slack and np.abs(sums - 1).max() <= slack):
            raise InputError(
                f"{name} must be probabilities that sum to 1 over the last axis, or integers, got "
                f"{array.dtype} values from {numbers.min():.6g} to {numbers.max():.6g}, sums from "
                f"{sums.min():.6g} to {sums.max():.6g}"
            )
    return array


def _other_length(name: str, array: Any, batch: int) -> InputError:
    return InputError(
        f"images and {name} must have the same batch size, got {batch} images and {name} of shape "
        f"{array.shape}"
    )


def label_hint(name: str, array: Any) -> str:
    """How labels of a usual other form become class indices."""
    integer = jnp.issubdtype(array.dtype, jnp.integer)
    if array.ndim == 2 and array.shape[1] == 1:
        return f"; use {name}[:, 0]"
    if array.ndim == 2 and integer:
        return f"; one-hot labels: use {name}.argmax(-1)"
    if array.ndim == 1 and jnp.issubdtype(array.dtype, jnp.floating):
        return f"; use {name}.astype(int)"
    return ""
