"""The twin of a network, and what in a network stops gradients."""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxrobust.inputs import evaluation_mode
from jaxrobust.twins._interpreter import evaluated
from jaxrobust.twins._known import Known, constant, is_float
from jaxrobust.twins._stops import Stop, stop_of


def straight_through(fn: Callable[..., Any]) -> Callable[..., Any]:
    r"""The same function, with gradients where its own are stopped or quantised.

    The values are those of `fn`. The derivative of an operation `q` that stops gradients is that of
    a surrogate `s`:

    .. math:: f(x) = q(x), \qquad f'(x) = s'(x)

    | operation | surrogate |
    |---|---|
    | `round`, `floor`, `ceil`, casts to integers, `stop_gradient` | the identity |
    | `sign`, `x > t` used as a number | a smooth step of width 0.1 |
    | `where(condition of x, x, constant)`, unless it is a ReLU | `x` (MeanSparse, k-winners) |
    | `argmax`, and its one-hot code | softmax |
    | `clip`, `clamp` | itself, and 0.1 of the gradient beyond its ends |
    | a table looked up at a quantised input | the slope between its neighbouring entries |
    | a derivative that the network's author prescribes | that of the function itself |

    Everything else keeps its derivative: ReLU, maxima, pooling, and what JAX stops for the sake of
    rounding, such as the maximum inside of softmax. Integers carry the derivative of the number
    that they stand for. The function is traced at every call. Nested functions (`jit`,
    `checkpoint`, `scan`, `cond`, custom derivatives) are looked into; `while` loops and integers
    that pass in or out of `scan` and `cond` are left as they are.

    Args:
      fn: a function of arrays with its parameters bound, such as a logits function: all arguments
        in floating point count as the input.

    Returns:
      The twin, with the arguments and results of `fn`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import twins
      >>> def coarse(x): return jnp.round(4 * x) / 4
      >>> twin = twins.straight_through(coarse)
      >>> float(twin(0.3)), float(jax.grad(coarse)(0.3)), float(jax.grad(twin)(0.3))
      (0.25, 0.0, 1.0)

    References:
      Athalye et al., Obfuscated Gradients Give a False Sense of Security, 2018 (arXiv:1802.00420),
      for backward passes that differ from forward passes (BPDA).
    """

    def twin(*args: Any) -> Any:
        flat, tree = jax.tree.flatten(args)
        outs, out_tree = _evaluated(fn, flat, tree, lambda *told: None)
        return jax.tree.unflatten(out_tree, [known.value for known in outs])

    return twin


def gradient_stops(fn: Callable[..., Any], *examples: ArrayLike) -> tuple[Stop, ...]:
    """The operations of a function that stop or quantise gradients on their way to the input.

    A finding is a suspicion, no proof: many sound networks clip their inputs.

    Args:
      fn: as `straight_through` takes it.
      *examples: arguments; only their shapes and types matter.

    Returns:
      A `Stop` for each operation, in the order of the program, each line of code once.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import twins
      >>> def coarse(x): return jax.nn.relu(jnp.round(4 * x) / 4)
      >>> [(stop.primitive, stop.what) for stop in twins.gradient_stops(coarse, jnp.ones(3))]
      [('round', 'rounds its input')]
    """
    found: dict[Stop, None] = {}

    def told(eqn: Any, what: str, *calls: Any) -> None:
        found.setdefault(stop_of(eqn, what, calls))

    flat, tree = jax.tree.flatten(examples)
    jax.eval_shape(lambda *leaves: [k.value for k in _evaluated(fn, leaves, tree, told)[0]], *flat)
    return tuple(found)


def _evaluated(fn: Callable[..., Any], flat: Any, tree: Any, told: Any) -> tuple[list[Known], Any]:
    with evaluation_mode():
        closed, out = jax.make_jaxpr(
            lambda *leaves: fn(*jax.tree.unflatten(tree, leaves)), return_shape=True
        )(*flat)
    known = [Known(leaf, True) if is_float(leaf) else constant(leaf) for leaf in flat]
    return evaluated(closed, known, told), jax.tree.structure(out)
