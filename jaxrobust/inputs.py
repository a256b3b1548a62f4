"""The door for arrays and numbers: every public function checks its arguments here, once.

Shapes and dtypes are checked always, also under `jit`. Values are checked where they are concrete:
a tracer has none. What passes comes back normalised, so nothing below has to look again.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROUNDING = 1e-6  # images this far outside of [0, 1] are clipped, not refused
MOST_CHANNELS_FIRST = 4  # axes this short in front of two longer ones are channels


class InputError(ValueError, AssertionError):
    """An argument of a wrong kind, shape or value; the message says which and what is right.

    A ValueError; also an AssertionError, because shapes used to be asserted by chex.
    """


def concrete(value: Any) -> np.ndarray | None:
    """The values as NumPy sees them, or None where they are not known yet.

    Args:
      value: an array, a number or a list of numbers.

    Returns:
      `[...]`; None for tracers and for arrays whose parts are on other hosts.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    return np.asarray(value)


def as_images(images: Any, *, name: str = "images", empty: bool = True) -> Any:
    """Images `[b, h, w, c]`, floating point in [0, 1].

    Args:
      images: a NumPy or JAX array, or nested lists.
      name: of the argument, for the message.
      empty: whether there may be no images.

    Returns:
      The array: NumPy stays NumPy, JAX stays JAX. Values outside of [0, 1] by rounding (1e-6) are
      clipped.

    Raises:
      InputError: for another rank, dtype or layout, values outside of [0, 1], or NaN.
    """
    array = _as_array(images)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{name} must be floating point in [0, 1], got {array.dtype}; "
            "divide 8-bit images by 255"
        )
    as_layout(array.shape, name=name)
    if not empty and not len(array):
        raise InputError(f"{name} must be [n, h, w, c] with n >= 1, got shape {array.shape}")
    values = concrete(array)
    if values is None or not values.size:
        return array
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        return array
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return np.clip(array, 0, 1) if isinstance(array, np.ndarray) else jnp.clip(array, 0, 1)
    if math.isnan(low + high):
        raise InputError(f"{name} must be finite, in [0, 1], got NaN")
    raise InputError(
        f"{name} must lie in [0, 1], got values from {low:.7g} to {high:.7g}, outside by "
        f"{max(-low, high - 1):.2g}; normalisation belongs inside the network"
    )


def as_layout(shape: Sequence[int], *, name: str = "images") -> None:
    """Refuses shapes of images that are not `[b, h, w, c]`.

    Args:
      shape: of the array of images.
      name: of the argument, for the message.

    Raises:
      InputError: for another rank, or an axis of channels in front of height and width.
    """
    if len(shape) != 4:
        raise InputError(f"{name} must be [b, h, w, c], got shape {tuple(shape)}")
    _, height, width, channels = shape
    if height <= MOST_CHANNELS_FIRST < min(width, channels):
        raise InputError(
            f"{name} must be [b, h, w, c], channels last; shape {tuple(shape)} looks like "
            f"channels first: move them by {name}.transpose(0, 2, 3, 1)"
        )


def as_labels(
    labels: Any,
    *,
    batch: int,
    classes: int | None = None,
    soft: bool = False,
    name: str = "labels",
) -> Any:
    """Labels of a batch: class indices `[b]` as int32, or probabilities `[b, k]` if allowed.

    Args:
      labels: integers of any width; with `soft` also floats.
      batch: number of images `b`.
      classes: number of classes `k`, if it is known.
      soft: whether probabilities are allowed.
      name: of the argument, for the message.

    Returns:
      `[b]` int32 or `[b, k]` floating point; NumPy stays NumPy, JAX stays JAX.

    Raises:
      InputError: for another shape, length or dtype, or values that are no classes or no
        probabilities.
    """
    array = _as_array(labels)
    wanted = f"integer class indices [b], here [{batch}]"
    if soft:
        wanted += f", or probabilities [b, k] of a floating dtype, here [{batch}, k]"
    if soft and array.ndim == 2 and jnp.issubdtype(array.dtype, jnp.floating):
        if len(array) != batch:
            raise _other_length(name, array, batch)
        return as_probabilities(array, classes=classes, name=name)
    if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(
            f"{name} must be {wanted}, got {array.dtype} {array.shape}{_label_hint(name, array)}"
        )
    if len(array) != batch:
        raise _other_length(name, array, batch)
    return as_classes(array, classes=classes, name=name)


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
    array = _as_array(labels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise InputError(
            f"{name} must be integer class indices, got {array.dtype} {array.shape}"
            f"{_label_hint(name, array)}"
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


def as_probabilities(probs: Any, *, classes: int | None = None, name: str = "labels") -> Any:
    """Soft labels `[..., k]`: probabilities that sum to 1.

    Args:
      probs: floating point.
      classes: number of classes `k`, if it is known.
      name: of the argument, for the message.

    Returns:
      `[..., k]`.

    Raises:
      InputError: for another number of classes, or values that are no probabilities.
    """
    array = _as_array(probs)
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
                f"{name} must be probabilities that sum to 1 over the last axis, got values from "
                f"{numbers.min():.6g} to {numbers.max():.6g}, sums from {sums.min():.6g} to "
                f"{sums.max():.6g}"
            )
    return array


def as_network_logits(out: Any, *, batch: int, name: str = "logits_fn") -> Any:
    """What a network returned: logits `[b, k]` of at least two classes.

    Args:
      out: the network's result.
      batch: number of images it was given.
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
    if out.shape[1] < 2:
        raise InputError(
            f"{wanted}, got shape {out.shape}; give a binary classifier two, "
            "jnp.concatenate([jnp.zeros_like(z), z], -1)"
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"{wanted} of a floating dtype, got {out.dtype}")
    return out


def as_radius(
    value: Any,
    *,
    name: str = "eps",
    batch: int | None = None,
    largest: float = math.inf,
    infinite: bool = False,
    unit: str = " (image units, images in [0, 1])",
) -> Any:
    """A radius, or another number of a threat: at least 0 and finite, one for all or one each.

    Args:
      value: `[]` or `[b]`; may be traced.
      name: of the argument, for the message.
      batch: number of images `b`, if it is known.
      largest: the largest that makes sense.
      infinite: whether it may be infinite.
      unit: for the message.

    Returns:
      A float array, `[]` or `[b]`.

    Raises:
      InputError: for another shape, or a value out of range.
    """
    wanted = f"{name} must be one number or one per example, "
    array = _as_array(value)
    if array.ndim > 1 or (array.ndim == 1 and batch not in (None, len(array))):
        here = "" if batch is None else f" ({batch},)"
        raise InputError(f"{wanted}shape () or [b]{here}, got shape {array.shape}")
    upper = f", at most {largest:g}" if math.isfinite(largest) else ""
    finite = "" if infinite else " and finite"
    wanted += f"at least 0{upper}{finite}{unit}"
    check_number(array, wanted, low=0, high=largest, infinite=infinite)
    return jnp.asarray(array, jnp.result_type(float))


def as_step_size(value: Any, *, name: str = "step_size") -> Any:
    """A step size, or a tree of them for composed threats: finite and at least 0.

    Args:
      value: numbers or arrays; may be traced.
      name: of the argument, for the message.

    Returns:
      `value` as it is.

    Raises:
      InputError: for a value that is negative, not finite or no number.
    """
    for leaf in jax.tree.leaves(value, is_leaf=lambda leaf: leaf is None):
        check_number(leaf, f"{name} must be finite and at least 0", low=0)
    return value


def as_number(
    value: Any,
    *,
    name: str,
    low: float = -math.inf,
    high: float = math.inf,
    infinite: bool = False,
    positive: bool = False,
) -> Any:
    """A hyper-parameter in its range: a number or an array, which may be traced.

    Args:
      value: the number.
      name: of the argument, for the message.
      low: the least value.
      high: the largest value.
      infinite: whether it may be infinite.
      positive: whether `low` itself is excluded.

    Returns:
      `value` as it is.

    Raises:
      InputError: for a value out of range, NaN, or no number.
    """
    bound = f"above {low:g}" if positive else f"at least {low:g}"
    if math.isfinite(low) and math.isfinite(high):
        start = "(" if positive else "["
        wanted = f"in {start}{low:g}, {high:g}]"
    elif math.isfinite(low):
        wanted = bound + ("" if infinite else " and finite")
    else:
        wanted = "a number" if infinite else "a finite number"
    least = np.nextafter(low, math.inf) if positive else low
    check_number(value, f"{name} must be {wanted}", low=least, high=high, infinite=infinite)
    return value


def check_number(
    value: Any, wanted: str, *, low: float, high: float = math.inf, infinite: bool = False
) -> None:
    """Refuses what is no number in [low, high].

    Args:
      value: a number or an array; the values of tracers cannot be looked at and pass.
      wanted: the message up to the value.
      low: the least value.
      high: the largest value.
      infinite: whether it may be infinite.

    Raises:
      InputError: with `wanted` and the value.
    """
    values = concrete(value)
    if values is None:
        dtype = jnp.result_type(value)
        if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
            raise InputError(f"{wanted}, got {dtype}")
        return
    is_real = jnp.issubdtype(values.dtype, jnp.floating) or np.issubdtype(values.dtype, np.integer)
    if is_real:
        numbers = values.astype(np.float64)
        inside = (numbers >= low) & (numbers <= high) & (infinite | np.isfinite(numbers))
        if np.all(inside):
            return
        worst = numbers[~inside].ravel()[0] if numbers.ndim else numbers
        raise InputError(f"{wanted}, got {worst:g}")
    raise InputError(f"{wanted}, got {value!r}")


def as_count(value: Any, *, name: str, least: int = 1) -> int:
    """A static number of steps, queries, restarts or the like.

    Args:
      value: an integer.
      name: of the argument, for the message.
      least: the smallest that makes sense.

    Returns:
      The integer.

    Raises:
      InputError: for anything else; a traced value cannot be static.
    """
    try:
        number = None if isinstance(value, bool | np.bool_ | jax.Array) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(
            f"{name} must be an integer of at least {least} (it is static), got {value!r}"
        )
    return number


def as_choice(value: Any, *, name: str, choices: Sequence[str]) -> Any:
    """A word out of several.

    Args:
      value: the word.
      name: of the argument, for the message.
      choices: the words.

    Returns:
      `value`.

    Raises:
      InputError: for any other word.
    """
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _as_array(value: Any) -> Any:
    """NumPy and JAX arrays as they are; anything else as NumPy, or as JAX where it is traced."""
    if isinstance(value, jax.Array | np.ndarray):
        return value
    values = concrete(value)
    return jnp.asarray(value) if values is None else values


def _other_length(name: str, array: Any, batch: int) -> InputError:
    return InputError(
        f"images and {name} must have the same batch size, got {batch} images and {name} of shape "
        f"{array.shape}"
    )


def _label_hint(name: str, array: Any) -> str:
    """How labels of a usual other form become class indices."""
    integer = jnp.issubdtype(array.dtype, jnp.integer)
    if array.ndim == 2 and array.shape[1] == 1:
        return f"; use {name}[:, 0]"
    if array.ndim == 2 and integer:
        return f"; one-hot labels: use {name}.argmax(-1)"
    if array.ndim == 1 and jnp.issubdtype(array.dtype, jnp.floating):
        return f"; use {name}.astype(int)"
    return ""


def _described(out: Any) -> str:
    """The kind of a result, and what it holds."""
    if isinstance(out, dict):
        return f"a dict with the keys {', '.join(map(str, out))}"
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {len(out)}"
    return f"{type(out).__name__}"
