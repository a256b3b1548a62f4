"""Logits: what networks return and losses take."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.inputs._error import InputError, as_array
from jaxrobust.inputs._labels import as_classes, as_probabilities, label_hint
from jaxrobust.inputs._numbers import as_number
from jaxrobust.inputs._shapes import common_shape


def as_network_logits(
    out: Any, *, batch: int, signed: bool = False, name: str = "logits_fn"
) -> Any:
    """What a network returned: logits `[b, k]` of at least two classes.

    Args:
      out: the network's result.
      batch: number of images it was given.
      signed: whether one logit is allowed, whose sign decides.
      name: of the network's argument, for the message.

    Returns:
      The array.

    Raises:
      InputError: if it is no array, has another shape, fewer than two classes, or is not floating
        point.
    """
    wanted = f"{name} must return one array of logits [b, k] with k >= 2"
    if not isinstance(out, jax.Array | np.ndarray):
        raise InputError(f"{wanted}, got {_described(out)}; wrap it to return the logits alone")
    if out.ndim != 2 or len(out) != batch:
        raise InputError(f"{wanted}, here [{batch}, k], got shape {out.shape}")
    if out.shape[1] < (1 if signed else 2):
        raise InputError(
            f"{wanted}, got shape {out.shape}; give a binary classifier two, "
            "jnp.concatenate([jnp.zeros_like(z), z], -1)"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"{wanted} of a floating dtype, got {out.dtype}")
    return out


def _described(out: Any) -> str:
    """The kind of a result, and what it holds."""
    if isinstance(out, dict):
        return f"a dict with the keys {', '.join(map(str, out))}"
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {len(out)}"
    return f"{type(out).__name__}"


def as_logits(logits: Any, name: str, *, classes: int = 1) -> Array:
    """Logits `[..., k]` in float32 or better.

    Half-precision logits are widened: three digits are not enough for the differences of
    log-probabilities that the losses are made of.

    Args:
      logits: floating point.
      name: of the argument, for the message.
      classes: the least number of classes.

    Returns:
      `[..., k]`.

    Raises:
      InputError: for another dtype, or fewer classes.
    """
    array = as_array(logits, name=name)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{name} must be floating-point logits [..., k], got {array.dtype}")
    if array.ndim == 0 or array.shape[-1] < classes:
        raise InputError(
            f"{name} must be logits [..., k] with k >= {classes} classes, got shape {array.shape}"
        )
    array = jnp.asarray(array)
    return array if array.dtype.itemsize >= 4 else array.astype(jnp.float32)


def aligned(*, classes: int = 1, **logits: Any) -> tuple[Array, ...]:
    """Several logits arrays `[..., k]`, broadcast to one shape and one dtype.

    Args:
      classes: the least number of classes.
      **logits: by the names of the arguments; leading axes may be missing, or of length 1, see
        `common_shape`.

    Returns:
      The arrays in the same order.

    Raises:
      InputError: for another dtype, other numbers of classes, or batches that differ.
    """
    arrays = [as_logits(value, name, classes=classes) for name, value in logits.items()]
    names = " and ".join(logits)
    if len({array.shape[-1] for array in arrays}) > 1:
        raise InputError(
            f"{names} must have the same number of classes, got shapes "
            f"{', '.join(str(array.shape) for array in arrays)}"
        )
    shape = common_shape(*(array.shape for array in arrays))
    if shape is None:
        raise InputError(
            f"{names} must have the same leading axes (or lack the first ones), got shapes "
            f"{', '.join(str(array.shape) for array in arrays)}"
        )
    dtype = np.result_type(*(array.dtype for array in arrays))
    return tuple(jnp.broadcast_to(array, shape).astype(dtype) for array in arrays)


def at_label(
    logits: Array, labels: Any, name: str = "labels", *, unlabelled: bool = False
) -> tuple[Array, Array]:
    """Logits and a boolean mask of the label's entry, broadcast to one shape `[..., k]`.

    A comparison in place of a gather: it fuses, and TPUs run it at full speed.

    Args:
      logits: `[..., k]`.
      labels: integers `[...]`; leading axes may be missing, or of length 1, see `common_shape`.
      name: of the labels' argument, for the message.
      unlabelled: whether -1 is allowed, which has no entry.

    Returns:
      Logits and mask.

    Raises:
      InputError: for labels of another shape or dtype, or that are no classes.
    """
    *lead, classes = logits.shape
    index = as_classes(labels, classes=classes, unlabelled=unlabelled, name=name)
    shape = common_shape(tuple(lead), index.shape)
    if shape is None or (lead and index.ndim > len(lead)):
        raise InputError(
            f"{name} must be integer class indices {tuple(lead)}, one for each logits vector, got "
            f"shape {index.shape}{label_hint(name, index)}"
        )
    index = jnp.broadcast_to(jnp.asarray(index), shape)
    every = jnp.arange(classes, dtype=index.dtype).reshape((1,) * len(shape) + (classes,))
    return jnp.broadcast_to(logits, (*shape, classes)), index[..., None] == every


def pick(values: Array, mask: Array) -> Array:
    """The entry of the last axis that the one-hot boolean mask selects.

    Args:
      values: `[..., k]`.
      mask: `[..., k]`.

    Returns:
      `[...]`; 0 where the mask selects none.
    """
    return jnp.where(mask, values, jnp.zeros_like(values)).sum(-1)


def as_targets(logits: Any, labels: Any, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """Logits and the label's distribution `[..., k]`: `1 - s` on it, `s / (k - 1)` elsewhere.

    Args:
      logits: `[..., k]`.
      labels: integer class indices `[...]`, or probabilities `[..., k]`, taken as they are.
      label_smoothing: `s`.

    Returns:
      Logits and targets.

    Raises:
      InputError: if an argument is not of the stated kind.
    """
    as_number(label_smoothing, name="label_smoothing", low=0, high=1, lead=())
    array = as_array(labels, name="labels")
    if jnp.issubdtype(array.dtype, jnp.floating):
        scores = as_logits(logits, "logits", classes=2)
        probs = as_probabilities(array, classes=scores.shape[-1], rank=scores.ndim)
        targets, scores = aligned(labels=probs, logits=scores)
        return scores, targets.astype(scores.dtype)
    scores, mask = at_label(as_logits(logits, "logits", classes=2), array)
    off = label_smoothing / (scores.shape[-1] - 1)
    return scores, jnp.where(mask, 1 - label_smoothing, off).astype(scores.dtype)
