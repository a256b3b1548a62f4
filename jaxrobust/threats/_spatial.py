"""Rotations and translations as a threat."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_radius
from jaxrobust.precision import wide_type
from jaxrobust.threats._rotate import rotate_translate
from jaxrobust.threats._rotate_published import rotate_translate_nearest, rotate_translate_twice
from jaxrobust.threats._sample import PADDINGS, Padding

Method = Literal["bilinear", "two_pass", "nearest"]
METHODS = get_args(Method)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Transform:
    """A rotation followed by a translation: the perturbation of `spatial`, or its step size.

    Attributes:
      degrees: counter-clockwise, `[]`; of a batch `[b]`.
      shift_px: (right, down) in pixels, `[2]`; of a batch `[b, 2]`. As a step size one number.
    """

    degrees: Array
    shift_px: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spatial:
    """Rotations by at most `max_degrees`, shifts by at most `max_shift_px`; made by `spatial`."""

    max_degrees: Array
    max_shift_px: Array
    padding: Padding = field(default="zeros", metadata={"static": True})
    method: Method = field(default="bilinear", metadata={"static": True})

    def init(self, key: Array, x: Array) -> Transform:
        """Angle and both shifts uniform between their limits."""
        unit = jax.random.uniform(key, (3,), wide_type(x), -1, 1)
        degrees, shift = self._limits(x)
        return Transform(unit[0] * degrees, unit[1:] * shift)

    def ascend(self, z: Transform, grad: Transform, step_size: Any) -> Transform:
        """Angle and shifts each step by the sign of their gradient."""
        if not isinstance(step_size, Transform):
            # One number is a share of the limits: degrees and pixels have no common unit.
            share = jnp.asarray(step_size, z.degrees.dtype)
            step_size = Transform(
                share * self.max_degrees.astype(share.dtype),
                share * self.max_shift_px.astype(share.dtype),
            )
        return jax.tree.map(
            lambda part, part_grad, size: (
                part + jnp.asarray(size, part.dtype) * jnp.sign(part_grad)
            ),
            z,
            grad,
            step_size,
        )

    def project(self, z: Transform, x: Array) -> Transform:
        """Angle and shifts cut to their limits; interpolated images never leave the box."""
        degrees, shift = self._limits(x)
        return Transform(
            jnp.clip(z.degrees, -degrees, degrees), jnp.clip(z.shift_px, -shift, shift)
        )

    def apply(self, z: Transform, x: Array) -> Array:
        """The transformed image."""
        if self.method == "nearest":
            return rotate_translate_nearest(x, z.degrees, z.shift_px)
        if self.method == "two_pass":
            return rotate_translate_twice(x, z.degrees, z.shift_px, padding=self.padding)
        return rotate_translate(x, z.degrees, z.shift_px, padding=self.padding)

    def on_grid(self, point: Array, x: Array) -> Transform:
        """The transform at a point (right, down, angle) of [-1, 1]^3."""
        degrees, shift = self._limits(x)
        return Transform(point[2] * degrees, shift * point[:2])

    def default_step(self, steps: int) -> float:
        """A share of both limits, 2.5 / steps: degrees and pixels have no common unit."""
        return 2.5 / max(steps, 1)

    def _limits(self, x: Array) -> tuple[Array, Array]:
        return self.max_degrees.astype(wide_type(x)), self.max_shift_px.astype(wide_type(x))


def spatial(
    max_degrees: ArrayLike,
    max_shift_px: ArrayLike,
    *,
    padding: Padding = "zeros",
    method: Method = "bilinear",
) -> Spatial:
    """The spatial threat: a rotation about the centre, then a shift to the right and down.

    Composed before a norm, the transformed image is attacked; composed after it, the perturbed
    image is transformed: `compose(spatial(30, 3), linf(8 / 255))` or the other way round.

    Args:
      max_degrees: largest angle to both sides in degrees, `[]` or one per example `[b]`, at most
        180. A leaf of the threat: changing it never recompiles.
      max_shift_px: largest shift in pixels along each axis, `[]` or `[b]`; a leaf too.
      padding: what comes in from beyond the border: "zeros", "edge", "reflect" or "symmetric",
        see `rotate_translate`.
      method: "bilinear" interpolates once (`rotate_translate`). The others are those of the
        papers: "two_pass" (`rotate_translate_twice`) and "nearest", without gradients
        (`rotate_translate_nearest`).

    Returns:
      The threat, a pytree. Perturbations are `Transform(degrees [], shift_px [2])`; an attack's
      step size is a `Transform` of numbers, or one number: the share of both limits.

    Raises:
      ValueError: if a limit is negative, not finite or of another shape, an option unknown, or
        `method="nearest"` is given another padding than "zeros".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> threat, image = threats.spatial(30, 3), jnp.ones((8, 8, 1))
      >>> z = threat.project(threats.Transform(jnp.array(45.0), jnp.array([1.0, -5.0])), image)
      >>> float(z.degrees), z.shift_px.tolist()
      (30.0, [1.0, -3.0])
      >>> threat.apply(z, image).shape
      (8, 8, 1)

    References:
      Engstrom et al., Exploring the Landscape of Spatial Robustness, 2019 (arXiv:1712.02779):
      30 degrees and 3 pixels on CIFAR-10. Kamath et al., 2020 (arXiv:2002.11318).
    """
    for name, value, choices in (("padding", padding, PADDINGS), ("method", method, METHODS)):
        if value not in choices:
            raise InputError(
                f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}"
            )
    if method == "nearest" and padding != "zeros":
        raise InputError(f"padding must be 'zeros' for method 'nearest', not {padding!r}")
    degrees = as_radius(max_degrees, name="max_degrees", largest=180, unit=" (degrees)")
    shift = as_radius(max_shift_px, name="max_shift_px", unit=" (pixels)")
    return Spatial(degrees, shift, padding, method)
