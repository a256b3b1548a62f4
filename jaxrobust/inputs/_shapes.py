"""Shapes that belong together."""

import jax.numpy as jnp


def common_shape(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that arrays broadcast to, or None where it would be an accident.

    Leading axes may be missing, or of length 1 in arrays of one rank. With both at once `[n]` and
    `[n, 1]` would become `[n, n]`.
    """
    longest = max(shapes, key=len)
    if len({len(shape) for shape in shapes}) == 1:
        try:
            return jnp.broadcast_shapes(*shapes)
        except ValueError:
            return None
    fits = all(shape == longest[len(longest) - len(shape) :] for shape in shapes)
    return longest if fits else None
