"""The nearest point of a hyperplane within the box [0, 1], exactly, in three norms."""

import jax
import jax.numpy as jnp
from jax import Array


def to_hyperplane(points: Array, normals: Array, excess: Array, *, norm: str) -> Array:
    r"""The shortest displacements from points of the box onto hyperplanes, within the box.

    Of all :math:`\delta` with :math:`\langle w, t + \delta \rangle = b` and
    :math:`0 \le t + \delta \le 1` the one of least norm; it is
    :math:`\delta_i = -\mathrm{sign}(w_i) m_i`, where :math:`m_i` is cut at the room that is left
    to the wall: :math:`\min(\lambda, room_i)` for l_inf, :math:`\min(\lambda |w_i|, room_i)` for
    l_2, and for l_1 the room of the largest :math:`|w_i|`, one after the other. A plane that
    misses the box is approached as far as the box allows.

    Args:
      points: `[..., d]` in [0, 1], the points t.
      normals: `[..., d]`, the normals w; leading axes broadcast against those of `points`.
      excess: `[..., 1]`, the value of `<w, t> - b` at the points: which way and how far.
      norm: "linf", "l2" or "l1".

    Returns:
      Displacements `[..., d]`; zero where `normals` are zero.

    References:
      Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
      Attack, 2020 (arXiv:1907.02044), the projections onto a hyperplane within the box.
    """
    if norm != "linf":
        normals = jnp.where(jnp.abs(normals) <= 1e-8, 0, normals)
    downhill = jnp.where(excess < 0, jnp.sign(normals), -jnp.sign(normals))
    room = jnp.where(downhill < 0, points, jnp.where(downhill > 0, 1 - points, 0))
    # Relative to the largest normal that can still act: squares of it cannot overflow.
    size = jnp.where(room > 0, jnp.abs(normals), 0)
    scale = jnp.max(size, -1, keepdims=True)
    scale = jnp.where(scale > 0, scale, 1)
    size, needed = size / scale, jnp.abs(excess) / scale
    if norm == "l1":
        return downhill * _greedy(size, room, needed)
    growth = jnp.ones_like(size) if norm == "linf" else size
    return downhill * _proportional(size, growth, room, needed)


def _proportional(size: Array, growth: Array, room: Array, needed: Array) -> Array:
    """`min(lam growth, room)` with the `lam` at which `sum(size min(...))` is `needed`.

    That sum is increasing, concave and piecewise linear in `lam`, so Newton's method from the
    left never overshoots and stops at the exact root: after about five rounds, where a sort of
    the `d` breakpoints is slow on accelerators. Gap times slope falls fourfold a round, which
    bounds the rounds by the exponents of floating point.
    """
    pull, full = size * growth, size * room

    def newton(lam: Array) -> Array:
        saturated = lam * growth >= room
        missing = needed - jnp.sum(jnp.where(saturated, full, 0), -1, keepdims=True)
        slope = jnp.sum(jnp.where(saturated, 0, pull), -1, keepdims=True)
        # Without a slope all room is used up: the plane is out of reach.
        return jnp.where(slope > 0, missing / jnp.where(slope > 0, slope, 1), unreachable)

    def forward(lams: tuple[Array, Array]) -> tuple[Array, Array]:
        return lams[1], jnp.maximum(lams[1], newton(lams[1]))

    unreachable = jnp.asarray(jnp.finfo(size.dtype).max, size.dtype)
    start = jnp.zeros_like(needed)
    lams = (start, jnp.maximum(start, newton(start)))
    lam = jax.lax.while_loop(lambda lams: jnp.any(lams[1] > lams[0]), forward, lams)[1]
    return jnp.minimum(lam * growth, room)


def _greedy(size: Array, room: Array, needed: Array) -> Array:
    """The room of the largest `size` first, the last one in part, until `needed` is reached.

    Bisection for the size at which it is reached; what cannot be told apart from it shares.
    """
    full = size * room

    def gained(above: Array) -> Array:
        return jnp.sum(jnp.where(size > above, full, 0), -1, keepdims=True)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        enough = gained(middle) > needed
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    halvings = jnp.finfo(size.dtype).nmant + 4
    bounds = jnp.zeros_like(needed), jnp.ones_like(needed)
    low, high = jax.lax.fori_loop(0, halvings, halve, bounds)
    last = (size > low) & (size <= high)
    gain = jnp.sum(jnp.where(last, full, 0), -1, keepdims=True)
    share = jnp.clip((needed - gained(high)) / jnp.where(gain > 0, gain, 1), 0, 1)
    return jnp.where(size > high, room, jnp.where(last, share * room, 0))
