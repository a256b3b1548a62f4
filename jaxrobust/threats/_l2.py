"""The l_2 ball around an image, cut with the box [0, 1]."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_radius
from jaxrobust.precision import in_float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L2:
    """Perturbations with `|delta|_2 <= eps` over all values of an image; made by `l2`."""

    eps: Array
    norm: ClassVar[str] = "l2"
    slack: float = field(default=1e-7, metadata={"static": True})

    @in_float32
    def init(self, key: Array, x: Array) -> Array:
        """Uniform in the ball, then cut to the box."""
        direction_key, radius_key = jax.random.split(key)
        direction = jax.random.normal(direction_key, x.shape, x.dtype)
        radius = jax.random.uniform(radius_key, (), x.dtype) ** (1 / x.size)
        scale = self.eps.astype(x.dtype) * radius / (jnp.linalg.norm(direction.ravel()) + 1e-12)
        return self.project(direction * scale, x)

    @in_float32
    def ascend(self, z: Array, grad: Array, step_size: Array) -> Array:
        """A step along the gradient's direction; a zero gradient moves nothing."""
        largest = jnp.max(jnp.abs(grad))
        scaled = grad / jnp.where(largest > 0, largest, 1)  # squares of 1e-30 underflow
        norm = jnp.linalg.norm(scaled.ravel())
        direction = scaled / jnp.where(norm > 0, norm, 1)
        return z + jnp.asarray(step_size, z.dtype) * direction

    @in_float32
    def project(self, z: Array, x: Array) -> Array:
        """Into the box first, then shrunk into the ball: a shrunk perturbation stays in the box.

        Not the nearest point of the intersection, but a point of it, and what the papers'
        training code computes.
        """
        inside = jnp.clip(z, -x, 1 - x)
        norm = jnp.linalg.norm(inside.ravel())
        eps = self.eps.astype(x.dtype)
        return inside * jnp.where(norm > eps, eps / (norm + self.slack), 1)

    def apply(self, z: Array, x: Array) -> Array:
        """`x + z`."""
        return x + z


def l2(eps: ArrayLike, *, slack: float = 1e-7) -> L2:
    """The l_2 threat: the Euclidean norm over all values of an image is at most `eps`.

    Args:
      eps: radius in image units over the whole image (0.5, or 128/255, on CIFAR-10), `[]` or
        one per example `[b]`. A leaf of the threat: changing it never recompiles.
      slack: a perturbation outside is scaled by `eps / (norm + slack)`. The default is what
        torch's `renorm`, and so TRADES, does; it also keeps rounding inside the ball. 0 scales
        onto the sphere.

    Returns:
      The threat, a pytree; perturbations have the image's shape `[h, w, c]`.

    Raises:
      ValueError: if `eps` is negative, not finite or of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> x = jnp.full((2, 2, 1), 0.5)
      >>> z = threats.l2(0.4).project(jnp.ones((2, 2, 1)), x)
      >>> round(float(jnp.linalg.norm(z.ravel())), 4)
      0.4
    """
    return L2(as_radius(eps), slack)
