"""The checked arguments of a bound: around which images, in which set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.bounds._region import Region, ball_region, box_region
from jaxrobust.inputs import (
    InputError,
    as_array,
    as_images,
    as_layout,
    as_number,
    as_radius,
    concrete,
)
from jaxrobust.precision import widened
from jaxrobust.threats import described, norm_of
from jaxrobust.typing import NORMS

Box = tuple[float, float] | None


class Problem(NamedTuple):
    """A batch of sets of images.

    Attributes:
      arrays: of all images, `[b, ...]` each.
      region: those of ONE image -> its set.
      shape: `(b, h, w, c)`.
      dtype: of the computation.
    """

    arrays: tuple[Array, ...]
    region: Callable[..., Region]
    shape: tuple[int, ...]
    dtype: Any


def problem_of(
    images: ArrayLike, threat: Any, lower: ArrayLike | None, upper: ArrayLike | None, box: Box
) -> Problem:
    """Checks what a public function was given.

    Raises:
      InputError: if not exactly one of `threat` and `lower, upper` is given, for a threat that is
        no norm's ball, or for images or a box that cannot be meant.
    """
    pair = lower is not None, upper is not None
    if any(pair) != all(pair) or all(pair) == (threat is not None):
        given = [
            n for n, v in (("threat", threat), ("lower", lower), ("upper", upper)) if v is not None
        ]
        raise InputError(
            "either threat, or lower and upper must be given, "
            f"got {' and '.join(given) if given else 'none of them'}"
        )
    if lower is not None and upper is not None:
        shape = tuple(jnp.shape(images))
        return box_problem(lower, upper, shape=shape)
    norm: Any = norm_of(threat)
    if norm not in NORMS or not hasattr(threat, "eps"):
        raise InputError(
            f"threat must be the ball of a norm ({', '.join(NORMS)}), got {described(threat)}: "
            "bounds over other sets are not known"
        )
    x = widened(jnp.asarray(as_images(images)))
    _check_box(box, x)
    eps = jnp.broadcast_to(as_radius(threat.eps, batch=len(x)).astype(x.dtype), (len(x),))
    return Problem((x, eps), lambda x, eps: ball_region(norm, x, eps, box), x.shape, x.dtype)


def box_problem(lower: ArrayLike, upper: ArrayLike, *, shape: tuple[int, ...] | None) -> Problem:
    """Images between `lower` and `upper`, `[b, h, w, c]` each."""
    low, high = (
        widened(jnp.asarray(_as_ends(x, name))) for x, name in ((lower, "lower"), (upper, "upper"))
    )
    for name, other, wanted in (("upper", high.shape, low.shape), ("lower", low.shape, shape)):
        if wanted is not None and other != wanted:
            of = "lower" if name == "upper" else "images"
            raise InputError(f"{name} must have the shape of {of}, {wanted}, got {other}")
    dtype = jnp.promote_types(low.dtype, high.dtype)
    _check_order(low, high)
    return Problem((low.astype(dtype), high.astype(dtype)), box_region, low.shape, dtype)


def _as_ends(value: ArrayLike, name: str) -> Any:
    """Pixel values `[b, h, w, c]`; of any size, because the set may be larger than the box."""
    array = as_array(value, name=name)
    if array.ndim != 4 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(
            f"{name} must be floating point [b, h, w, c], got {array.dtype} of shape {array.shape}"
        )
    as_layout(array.shape, name=name)
    return array


def _check_order(low: Array, high: Array) -> None:
    values = concrete(low), concrete(high)
    if values[0] is not None and values[1] is not None and values[0].size:
        over = float((values[0] - values[1]).max())
        if not over <= 1e-6:
            raise InputError(f"lower must be at most upper, got values that exceed it by {over:g}")


def _check_box(box: Box, images: Array) -> None:
    if box is None:
        return
    as_number(box, name="box", infinite=True)
    if np.shape(box) != (2,) or not box[0] < box[1]:
        raise InputError(f"box must be None or (least, largest) pixel value, got {box!r}")
    values = concrete(images)
    if (
        values is not None
        and values.size
        and not (values.min() >= box[0] and values.max() <= box[1])
    ):
        raise InputError(
            f"box must contain the images, got {box!r} for pixel values from {values.min():g} to "
            f"{values.max():g}"
        )
