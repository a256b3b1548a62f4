"""The decision boundary that FAB moves to, and its linearisation."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._attacked import finite, where
from jaxrobust.attacks._norms import DUAL, norm_of
from jaxrobust.typing import LogitsFn, Norm

# A decision function at images [b, h, w, c]: its values [b] (0 on the boundary, negative where
# the label wins) and their gradients [b, h, w, c], all finite.
Linearise = Callable[[Array], tuple[Array, Array]]


class _Boundary(NamedTuple):
    """A linearised decision boundary; per example."""

    distance: Array  # from the point of linearisation
    value: Array
    grad: Array


def boundaries(
    evaluate: LogitsFn, labels: Array, x: Array
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Logits of one forward pass, and the linearisation at `x` of `z_c - z_label` for classes c.

    Returns:
      Logits `[b, k]`; a function that takes classes `[b]` to values `[b]` and gradients like `x`,
      with one backward pass.
    """
    logits, pull = jax.vjp(evaluate, x)

    def linearise(classes: Array) -> tuple[Array, Array]:
        difference = _difference(classes, labels, logits)
        values = jnp.sum(_weighed(difference, logits), -1)
        return finite(values).astype(x.dtype), finite(pull(difference)[0])

    return logits, linearise


def boundary_to(evaluate: LogitsFn, labels: Array, targets: Array) -> Linearise:
    """Linearises `z_target - z_label`: one backward pass."""
    return lambda x: boundaries(evaluate, labels, x)[1](targets)


def nearest_boundary(evaluate: LogitsFn, labels: Array, norm: Norm) -> Linearise:
    """Linearises `z_c - z_label` for the class whose linearised boundary is nearest."""

    def linearise(x: Array) -> tuple[Array, Array]:
        logits, boundary = boundaries(evaluate, labels, x)

        def consider(nearest: _Boundary, classes: Array) -> tuple[_Boundary, None]:
            value, grad = boundary(classes)
            distance = jnp.abs(value) / (1e-12 + norm_of(grad, DUAL[norm]))
            new = _Boundary(distance, value, grad)
            return where(distance < nearest.distance, new, nearest), None

        zeros = jnp.zeros(labels.shape, x.dtype)
        none = _Boundary(zeros + jnp.inf, zeros, jnp.zeros_like(x))
        others = jnp.arange(logits.shape[-1] - 1, dtype=labels.dtype)[:, None]
        others = others + (others >= labels[None]).astype(labels.dtype)  # all but the label
        # One after the other: on CPU a vmapped backward pass takes more than twice as long, and
        # the gradients of a thousand classes fit in no memory.
        return jax.lax.scan(consider, none, others)[0][1:]

    return linearise


def _difference(classes: Array, labels: Array, logits: Array) -> Array:
    """`[b, k]`: 1 at the class, -1 at the label, 0 elsewhere."""
    index = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None]
    at_class = (index == classes.astype(labels.dtype)[:, None]).astype(logits.dtype)
    return at_class - (index == labels[:, None]).astype(logits.dtype)


def _weighed(difference: Array, logits: Array) -> Array:
    """The product of both; infinite logits of other classes do not count."""
    return jnp.where(difference == 0, 0, difference * logits)
