"""Certified margins: how far the label's logit stays above every other one."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.bounds._backward import lower_bounds
from jaxrobust.bounds._crown import _outputs, bounds_of_rows
from jaxrobust.bounds._graph import Graph, traced
from jaxrobust.bounds._intermediate import by_intervals
from jaxrobust.bounds._problem import Box, Problem, problem_of
from jaxrobust.bounds._rule import Known
from jaxrobust.inputs import InputError, as_array, as_choice, as_count, as_labels

Method = Literal["ibp", "crown-ibp", "crown", "alpha-crown"]
METHODS = get_args(Method)


def margins(
    logits_fn: Callable[[Array], Array],
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Any = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    method: Method = "crown",
    iterations: int = 20,
    box: Box = (0.0, 1.0),
) -> Array:
    r"""Lower bounds of the margins of the label over a ball of images.

    .. math:: m_j \le \min_{x'} \; z_y(x') - z_j(x')

    over all images x' in the ball of `threat` and in the box, or between `lower` and `upper`.

    The bounds hold for real numbers. In float32 rounding moves them by up to 1e-5 of the largest
    margin: one within `1e-4 (1 + max |m|)` of 0 is no proof. Compute such points in float64.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, which acts on each image alone. It is
        traced for one image, so a network in training mode cannot give a wrong number.
      images: `[b, h, w, c]` in [0, 1]. With `lower` and `upper` only their shape is used.
      labels: integer class indices `[b]`.
      threat: `threats.linf`, `l2` or `l1`. Its radius may be traced: a new one compiles nothing.
      lower: `[b, h, w, c]`, least pixel values, in place of `threat`.
      upper: `[b, h, w, c]`, largest pixel values.
      method: "ibp", interval arithmetic (about two forward passes); "crown-ibp", linear bounds on
        its intervals (a backward pass for each class); "crown", linear bounds on their own
        intervals (two backward passes for each value inside the network); or "alpha-crown", with
        the relaxations of the last pass optimised as well.
      iterations: of "alpha-crown".
      box: least and largest pixel value, with which the ball of `threat` is cut; `None` for the
        plain ball.

    Returns:
      `[b, k]`; the label's own entry is 0. Overflow gives -inf.

    Raises:
      UnsupportedPrimitive: if `logits_fn` has an operation that no rule bounds.
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds, threats
      >>> def logits_fn(x): return jnp.maximum(x.sum((1, 2)) - 1, 0) @ jnp.array([[1.0, -1.0]])
      >>> x, y = jnp.full((1, 2, 2, 1), 0.5), jnp.array([0])
      >>> bounds.margins(logits_fn, x, y, threat=threats.linf(0.125)).tolist()
      [[0.0, 1.0]]

    References:
      Gowal et al., 2018 (arXiv:1810.12715), for "ibp". Zhang et al., Towards Stable and Efficient
      Training of Verifiably Robust Neural Networks, 2020 (arXiv:1906.06316), for "crown-ibp". Zhang
      et al., 2018 (arXiv:1811.00866), for "crown". Xu et al., 2021 (arXiv:2011.13824), for
      "alpha-crown".
    """
    as_choice(method, name="method", choices=METHODS)
    as_count(iterations, name="iterations")
    problem = problem_of(images, threat, lower, upper, box)
    graph = traced(logits_fn, problem.shape[1:], problem.dtype, name="logits_fn", classes=2)
    classes, dtype = _outputs(graph)
    y = as_labels(labels, batch=problem.shape[0], classes=classes)
    differences = jax.vmap(lambda label: _differences(label, classes, dtype))
    if method != "ibp":
        intermediate = "ibp" if method == "crown-ibp" else "crown"
        steps = iterations if method == "alpha-crown" else 0
        found = bounds_of_rows(graph, problem, differences(y), intermediate, steps)  # type: ignore[arg-type]
    elif classes > len(y):
        found = _by_intervals(graph, problem, differences(y))
    else:  # fewer labels than images: the rows of all labels serve them all
        every = differences(jnp.arange(classes, dtype=y.dtype)).reshape(-1, classes)
        found = _by_intervals(graph, problem, every).reshape(len(y), classes, classes - 1)
        found = jnp.take_along_axis(found, y[:, None, None], 1)[:, 0]
    return jax.vmap(_with_label)(found, y)


def _differences(label: Array, classes: int, dtype: Any) -> Array:
    """Rows `[k - 1, k]` of `z_y - z_j` for all other classes j in order."""
    others = jnp.arange(classes - 1, dtype=label.dtype)
    others = others + (others >= label).astype(label.dtype)
    return jax.nn.one_hot(label[None], classes, dtype=dtype) - jax.nn.one_hot(
        others, classes, dtype=dtype
    )


def _with_label(found: Array, label: Array) -> Array:
    """`[k - 1]` of the other classes -> `[k]` with 0 at the label."""
    place = jnp.arange(len(found) + 1, dtype=label.dtype)
    after = (place > label).astype(label.dtype)
    spread = found[jnp.clip(place - after, 0, len(found) - 1)]
    return jnp.where(place == label, jnp.zeros_like(spread), spread)


def _by_intervals(graph: Graph, problem: Problem, rows: Array) -> Array:
    """The rows pass the last affine operations, and are evaluated on the intervals before these.

    Rows are `[b, s, k]`, or `[s, k]` for all images: these pass the operations once.
    """

    def of_one(rows: Array, *arrays: Array) -> Array:
        if isinstance(graph.output, Known):
            return rows @ jnp.asarray(graph.output.value)[0]
        region = problem.region(*arrays)
        intervals = by_intervals(graph, region)
        return lower_bounds(graph, region, graph.output, rows[:, None], intervals, stop=True)

    with jax.default_matmul_precision("highest"):
        shared = None if rows.ndim == 2 else 0
        axes = (shared, *(0 for _ in problem.arrays))
        found = jax.vmap(of_one, in_axes=axes)(rows, *problem.arrays)
    return jnp.where(jnp.isnan(found), -jnp.inf, found)


def verified(margins: ArrayLike) -> Array:
    """Whether bounds of margins prove that no image of the set is misclassified.

    Args:
      margins: `[..., k]` as `margins` returns them; the label's entry is 0.

    Returns:
      `[...]` bool: at least k - 1 entries are above 0. NaN is not.

    Raises:
      ValueError: if `margins` are not floating point with at least two classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import bounds
      >>> bounds.verified(jnp.array([[0.0, 0.2, 0.1], [0.3, 0.0, -0.1]])).tolist()
      [True, False]
    """
    found = as_array(margins, name="margins")
    if not jnp.issubdtype(found.dtype, jnp.floating) or found.ndim < 1 or found.shape[-1] < 2:
        raise InputError(
            f"margins must be floating point [..., k] with k >= 2, got {found.dtype} of shape "
            f"{found.shape}"
        )
    found = jnp.asarray(found)
    return jnp.sum(found > 0, -1) >= found.shape[-1] - 1
