"""The l_inf ball around an image, cut with the box [0, 1]."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_radius
from jaxrobust.precision import in_float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Linf:
    """Perturbations with `max |delta| <= eps`; made by `linf`."""

    eps: Array
    norm: ClassVar[str] = "linf"

    @in_float32
    def init(self, key: Array, x: Array) -> Array:
        """Uniform in the cube of half-width `eps`, cut to the box."""
        eps = self.eps.astype(x.dtype)
        return self.project(jax.random.uniform(key, x.shape, x.dtype, -1, 1) * eps, x)

    @in_float32
    def ascend(self, z: Array, grad: Array, step_size: Array) -> Array:
        """A sign step; where the gradient is exactly 0 nothing moves."""
        return z + jnp.asarray(step_size, z.dtype) * jnp.sign(grad)

    @in_float32
    def project(self, z: Array, x: Array) -> Array:
        """The nearest perturbation in the cube and the box."""
        eps = self.eps.astype(x.dtype)
        return jnp.clip(jnp.clip(z, -eps, eps), -x, 1 - x)

    def apply(self, z: Array, x: Array) -> Array:
        """`x + z`; no clip here, it would halve the gradient of pixels at the border."""
        return x + z


def linf(eps: ArrayLike) -> Linf:
    """The l_inf threat: every pixel value moves by at most `eps` and stays in [0, 1].

    Args:
      eps: radius in image units, `[]` or one per example `[b]`, at most 1 (8/255, not 8).
        A leaf of the threat: changing it never recompiles.

    Returns:
      The threat, a pytree; perturbations have the image's shape `[h, w, c]`.

    Raises:
      ValueError: if `eps` is negative, not finite, larger than 1 or of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> x = jnp.full((4, 4, 1), 0.75)
      >>> float(threats.linf(0.5).project(jnp.ones((4, 4, 1)), x).max())
      0.25
    """
    return Linf(as_radius(eps, largest=1, unit=" (image units: 8/255, not 8)"))
