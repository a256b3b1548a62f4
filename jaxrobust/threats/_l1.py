"""The l_1 ball around an image, cut with the box [0, 1]."""

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, as_radius
from jaxrobust.precision import in_float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class L1:
    """Perturbations with `|delta|_1 <= eps` over all values of an image; made by `l1`."""

    eps: Array
    norm: ClassVar[str] = "l1"
    sparsity: float = field(default=0.05, metadata={"static": True})

    @in_float32
    def init(self, key: Array, x: Array) -> Array:
        """Uniform in the l_1 ball, then projected to the box."""
        direction_key, radius_key = jax.random.split(key)
        direction = jax.random.laplace(direction_key, x.shape, x.dtype)
        radius = jax.random.uniform(radius_key, (), x.dtype) ** (1 / x.size)
        scale = self.eps.astype(x.dtype) * radius / (jnp.sum(jnp.abs(direction)) + 1e-12)
        return self.project(direction * scale, x)

    @in_float32
    def ascend(self, z: Array, grad: Array, step_size: Array) -> Array:
        """Equal steps on the `sparsity` share of values with the largest gradients.

        The steepest l_1 step moves one value alone; spreading it over a few makes progress in
        a usable number of steps (Tramer and Boneh, 2019).
        """
        count = max(1, round(self.sparsity * z.size))
        size = jnp.abs(grad).ravel()
        threshold = jax.lax.top_k(size, count)[0][-1]
        direction = jnp.where(jnp.abs(grad) >= threshold, jnp.sign(grad), 0)
        moved = jnp.sum(jnp.abs(direction))
        return z + jnp.asarray(step_size, z.dtype) * direction / jnp.maximum(moved, 1)

    @in_float32
    def project(self, z: Array, x: Array) -> Array:
        """The nearest perturbation of the ball and the box, exactly."""
        return jnp.clip(z + l1_box_correction(z, x, self.eps), -x, 1 - x)  # sum's rounding

    def apply(self, z: Array, x: Array) -> Array:
        """`x + z`."""
        return x + z


def l1(eps: ArrayLike, *, sparsity: float = 0.05) -> L1:
    """The l_1 threat: the absolute changes of an image sum to at most `eps`.

    Args:
      eps: radius in image units over the whole image (12 on CIFAR-10), `[]` or one per example
        `[b]`. A leaf of the threat: changing it never recompiles.
      sparsity: the share of values in (0, 1] that one ascent step of `pgd` moves.

    Returns:
      The threat, a pytree; perturbations have the image's shape `[h, w, c]`.

    Raises:
      ValueError: if `eps` is negative, not finite or of another shape, or `sparsity` is not in
        (0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> x = jnp.full((2, 2, 1), 0.5)
      >>> z = threats.l1(1.0).project(jnp.ones((2, 2, 1)), x)
      >>> z.ravel().tolist()
      [0.25, 0.25, 0.25, 0.25]

    References:
      Croce and Hein, Mind the Box: l_1-APGD for Sparse Adversarial Attacks, 2021
      (arXiv:2103.01208), for the projection. Tramer and Boneh, Adversarial Training and
      Robustness for Multiple Perturbations, 2019 (arXiv:1904.13000), for the step.
    """
    if not 0 < sparsity <= 1:
        raise InputError(f"sparsity must be a share in (0, 1], got {sparsity!r}")
    return L1(as_radius(eps), sparsity)


def l1_box_correction(u: Array, x: Array, eps: ArrayLike) -> Array:
    """What to add to `u` to reach its nearest point of the l_1 ball and the box around `x`.

    The projection is `sign(u) clip(|u| - lam, 0, room)` with `room` the way to the box's wall
    and `lam >= 0` the threshold at which the radius is met. The sum of it falls piecewise
    linearly in `lam`: bisection finds the piece, one linear solve on it finds `lam`. Bisection
    is a loop of reductions, which every backend runs at full speed; sorting the 2d breakpoints
    is not.

    Args:
      u: displacement `[...]` of one example; `x + u` may leave the box.
      x: the centre `[...]`, in [0, 1].
      eps: the l_1 radius, `[]`.

    Returns:
      The correction `[...]`; returned rather than the sum `u + correction`, since AutoAttack's
      L1 attack depends on the order of that sum's rounding.
    """
    eps = jnp.asarray(eps, u.dtype)
    size = jnp.abs(u)
    room = jnp.where(u >= 0, 1 - x, x)
    outside = jnp.maximum(size - room, 0)

    def left(lam: Array) -> Array:
        return jnp.sum(jnp.clip(size - lam, 0, room))

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        above = left(middle) > eps
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    halvings = jnp.finfo(u.dtype).nmant + 4
    largest = jnp.max(size)
    low, _ = jax.lax.fori_loop(0, halvings, halve, (jnp.zeros_like(eps), largest))
    # The piece begins where a value last reached a wall; its free values share the excess.
    begin = jnp.max(jnp.where(size <= low, size, jnp.where(outside <= low, outside, 0)))
    free = (size > begin) & (outside <= begin)
    lam = begin + (left(begin) - eps) / jnp.maximum(jnp.sum(free.astype(u.dtype)), 1)
    lam = jnp.where(eps > 0, lam, largest)  # nothing is left, not even by rounding
    lam = jnp.where(left(jnp.zeros_like(eps)) <= eps, 0, lam)
    return -jnp.sign(u) * jnp.minimum(size, jnp.maximum(lam, outside))
