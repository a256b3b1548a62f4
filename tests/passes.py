"""How often a traced program runs a network forwards and backwards."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

PIXELS, CLASSES = 48, 3
SHAPE = (4, 4, 3)
WEIGHTS = jax.random.normal(jax.random.key(0), (PIXELS, CLASSES))


def network(images: jax.Array) -> jax.Array:
    """One product per forward pass, and its transpose per backward pass."""
    return images.reshape(len(images), -1).astype(jnp.float32) @ WEIGHTS


class Passes(NamedTuple):
    """Of single examples.

    Attributes:
      forwards: forward passes.
      backwards: backward passes.
      open: loops whose length only the run decides; their bodies are counted once.
    """

    forwards: int = 0
    backwards: int = 0
    open: int = 0

    def plus(self, other: "Passes", times: int = 1) -> "Passes":
        return Passes(*(a + times * b for a, b in zip(self, other, strict=True)))


def passes_of(function: Any, *arguments: Any) -> Passes:
    """The passes of one call, counted in its jaxpr: loops by their length, the dearer branch."""
    return counted(jax.make_jaxpr(function)(*arguments).jaxpr)


def counted(jaxpr: core.Jaxpr) -> Passes:
    total = Passes()
    for equation in jaxpr.eqns:
        inner = [counted(part) for part in jaxprs_in(equation.params)]
        if equation.primitive.name == "dot_general":
            total = total.plus(product(equation))
        elif equation.primitive.name == "cond":
            total = total.plus(max(inner))
        else:
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            for part in inner:
                total = total.plus(part, times)
            if equation.primitive.name == "while" and any(inner):
                total = total.plus(Passes(open=int(any(sum(part) for part in inner))))
    return total


def product(equation: core.JaxprEqn) -> Passes:
    """Forwards the pixels are contracted, backwards the classes."""
    (left, _), _ = equation.params["dimension_numbers"]
    sizes = {equation.invars[0].aval.shape[axis] for axis in left}
    made = int(np.prod(equation.outvars[0].aval.shape))
    if sizes == {PIXELS}:
        return Passes(forwards=made // CLASSES)
    if sizes == {CLASSES} and made % PIXELS == 0:
        return Passes(backwards=made // PIXELS)
    return Passes()


def jaxprs_in(params: dict[str, Any]) -> list[core.Jaxpr]:
    leaves = jax.tree.leaves(
        list(params.values()), is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr))
    )
    found = [x.jaxpr if isinstance(x, core.ClosedJaxpr) else x for x in leaves]
    return [x for x in found if isinstance(x, core.Jaxpr)]
