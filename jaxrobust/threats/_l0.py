"""The l_0 ball around an image, cut with the box [0, 1]."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_radius, concrete
from jaxrobust.precision import in_float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L0:
    """Perturbations that change at most `eps` values of an image; made by `l0`."""

    eps: Array
    norm: ClassVar[str] = "l0"

    def default_step(self, steps: int) -> Array:
        """100, far beyond the range of a value, however many steps there are.

        A step beyond the box is projected to the walls of the values with the
        largest products of gradient and room, the worst point of the linearised loss. After a
        short step the values that are changed already would always stay the largest.
        """
        return jnp.full_like(self.eps, 100)

    @in_float32
    def init(self, key: Array, x: Array) -> Array:
        """New values, uniform in [0, 1], for `eps` of the image's values, drawn at random."""
        place_key, value_key = jax.random.split(key)
        chosen = _largest(jax.random.uniform(place_key, x.shape, x.dtype), self.eps)
        return jnp.where(chosen, jax.random.uniform(value_key, x.shape, x.dtype) - x, 0)

    @in_float32
    def ascend(self, z: Array, grad: Array, step_size: Array) -> Array:
        """A step along the gradient, the largest value of it `step_size`; 0 moves nothing."""
        largest = jnp.max(jnp.abs(grad))
        return z + jnp.asarray(step_size, z.dtype) * (grad / jnp.where(largest > 0, largest, 1))

    @in_float32
    def project(self, z: Array, x: Array) -> Array:
        """The nearest perturbation of the ball and the box.

        It keeps the `eps` values that are worth most: within the box these are the largest; of one
        that leaves it the part beyond is lost either way.
        """
        inside = jnp.clip(z, -x, 1 - x)
        # z^2 - (z - inside)^2 is what keeping it saves; its root, as squares underflow.
        worth = jnp.sqrt(jnp.abs(inside)) * jnp.sqrt(2 * jnp.abs(z) - jnp.abs(inside))
        return jnp.where(_largest(worth, self.eps) & (worth > 0), inside, 0)

    def apply(self, z: Array, x: Array) -> Array:
        """`x + z`."""
        return x + z


def _largest(values: Array, count: Array) -> Array:
    """Bool of the same shape: the `count` largest, rounded down, the first of equals."""
    rank = jnp.argsort(jnp.argsort(-values.ravel())).reshape(values.shape)
    return rank.astype(count.dtype) < jnp.floor(count)


def l0(eps: ArrayLike) -> L0:
    """The l_0 threat: at most `eps` values of an image change, by whatever amount within [0, 1].

    A value is one entry of `[h, w, c]`, as sigma-zero, FMN and AttackBench count; a pixel of three
    channels has three.

    Args:
      eps: number of values, `[]` or one per example `[b]`; rounded down. A leaf of the threat:
        changing it never recompiles.

    Returns:
      The threat, a pytree; perturbations have the image's shape `[h, w, c]`.

    Raises:
      ValueError: if `eps` is negative, not finite, between 0 and 1, or of another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> x = jnp.full((2, 2, 1), 0.5)
      >>> z = jnp.array([0.1, -0.4, 0.2, 0.3]).reshape(2, 2, 1)
      >>> [round(v, 1) for v in threats.l0(2).project(z, x).ravel().tolist()]
      [0.0, -0.4, 0.0, 0.3]

    References:
      Croce and Hein, Sparse and Imperceivable Adversarial Attacks, 2019 (arXiv:1909.05040), for
      projected gradient descent in l_0.
    """
    values = as_radius(eps, unit=" (a number of values)")
    known = concrete(values)
    if known is not None and ((known > 0) & (known < 1)).any():
        raise InputError(
            f"eps must be a number of values, 0 or at least 1, not a share of them; got {eps!r}"
        )
    return L0(values)
