"""The least and the largest score of a binary classifier over a ball, where they are exact."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class Extremes(NamedTuple):
    """What a binary classifier does on the balls around `n` points; its sign decides the class.

    Attributes:
      score: `[n]`, f(x).
      lowest: `[n]`, the least f(x') over the ball around x.
      highest: `[n]`, the largest.
    """

    score: Array
    lowest: Array
    highest: Array


def linear_extremes(
    weights: ArrayLike,
    bias: ArrayLike,
    x: ArrayLike,
    *,
    norm: str,
    eps: ArrayLike,
) -> Extremes:
    r"""Exact extremes of a linear classifier over a norm ball (without a box).

    .. math:: \min_{\|x' - x\|_p \le \epsilon} w^\top x' + b = w^\top x + b - \epsilon \|w\|_q,
              \quad 1/p + 1/q = 1

    Args:
      weights: `[d]`.
      bias: `[]`.
      x: points `[n, d]`.
      norm: of the ball: "linf", "l2" or "l1".
      eps: radius, `[]` or `[n]`. May be traced.

    Returns:
      `Extremes`.

    Raises:
      ValueError: if `norm` is unknown.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.linear_extremes([3.0, -4.0], 0.0, [[1.0, 0.0]], norm="linf", eps=0.5)
      >>> [float(v[0]) for v in found]
      [3.0, -0.5, 6.5]
    """
    weights, x = jnp.asarray(weights), jnp.asarray(x)
    size = jnp.abs(weights)
    if norm not in ("linf", "l2", "l1"):
        raise ValueError(f"norm must be 'linf', 'l2' or 'l1', got {norm!r}")
    dual = {"linf": jnp.sum(size), "l2": jnp.sqrt(jnp.sum(size**2)), "l1": jnp.max(size)}[norm]
    score = x @ weights + jnp.asarray(bias, x.dtype)
    reach = jnp.broadcast_to(jnp.asarray(eps, x.dtype) * dual, score.shape)
    return Extremes(score, score - reach, score + reach)


def linear_worst_case(
    weights: ArrayLike, x: ArrayLike, labels: ArrayLike, *, norm: str, eps: ArrayLike
) -> Array:
    """The point of the ball at which a linear classifier's margin f(x')y is least.

    Args:
      weights: `[d]`.
      x: points `[n, d]`.
      labels: -1 or +1, `[n]`.
      norm: of the ball: "linf", "l2" or "l1".
      eps: radius, `[]`. May be traced.

    Returns:
      `[n, d]`; with "l1" all of the radius is spent on the largest weight (the first of ties).

    Raises:
      ValueError: if `norm` is unknown.

    Example:
      >>> from jaxrobust import theory
      >>> theory.linear_worst_case([3.0, -4.0], [[0.0, 0.0]], [1], norm="l1", eps=0.5).tolist()
      [[0.0, 0.5]]
    """
    weights, x = jnp.asarray(weights), jnp.asarray(x)
    if norm == "linf":
        direction = jnp.sign(weights)
    elif norm == "l2":
        size = jnp.sqrt(jnp.sum(weights**2))
        direction = weights / jnp.where(size > 0, size, 1)
    elif norm == "l1":
        largest = jnp.arange(len(weights)) == jnp.argmax(jnp.abs(weights))
        direction = jnp.where(largest, jnp.sign(weights), 0)
    else:
        raise ValueError(f"norm must be 'linf', 'l2' or 'l1', got {norm!r}")
    signs = jnp.asarray(labels).astype(x.dtype)
    return x - jnp.asarray(eps, x.dtype) * signs[:, None] * direction[None]


def piecewise_extremes(
    breaks: ArrayLike, values: ArrayLike, x: ArrayLike, *, eps: ArrayLike
) -> Extremes:
    """Exact extremes of a piecewise constant classifier on the line over closed intervals.

    Args:
      breaks: `[m]`, rising; piece `i` is `breaks[i-1] <= x < breaks[i]`.
      values: `[m + 1]`, the score on each piece.
      x: points `[n]`.
      eps: radius, `[]` or `[n]`. May be traced.

    Returns:
      `Extremes`.

    Raises:
      ValueError: if `values` is not one longer than `breaks`.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.piecewise_extremes([0.5], [-1.0, 2.0], [0.1, 0.4], eps=0.2)
      >>> found.score.tolist(), found.highest.tolist()
      ([-1.0, -1.0], [-1.0, 2.0])
    """
    breaks, values, x = jnp.asarray(breaks), jnp.asarray(values), jnp.asarray(x)
    if len(values) != len(breaks) + 1:
        raise ValueError(
            f"values must be one longer than breaks, got {len(values)} and {len(breaks)}"
        )
    infinity = jnp.full((1,), jnp.inf, breaks.dtype)
    begin = jnp.concatenate([-infinity, breaks])[None]
    end = jnp.concatenate([breaks, infinity])[None]
    eps = jnp.asarray(eps, x.dtype)
    here = (x[:, None] >= begin) & (x[:, None] < end)
    met = ((x + eps)[:, None] >= begin) & ((x - eps)[:, None] < end)
    return Extremes(
        jnp.sum(jnp.where(here, values[None], 0), -1),
        jnp.min(jnp.where(met, values[None], jnp.inf), -1),
        jnp.max(jnp.where(met, values[None], -jnp.inf), -1),
    )


def visited_extremes(score: ArrayLike, visited: ArrayLike) -> Extremes:
    """Extremes over the points that were visited, for classifiers without an exact worst case.

    Everything in `jaxrobust.theory` that is a statement about a ball is then an exact statement
    about the visited set, x itself included: both sides of a bound see the same points.

    Args:
      score: `[n]`, f(x).
      visited: `[s, n]`, f at `s` points of each ball, e.g. adversarial images of several attacks.

    Returns:
      `Extremes`.

    Example:
      >>> from jaxrobust import theory
      >>> found = theory.visited_extremes([1.0, 2.0], [[0.5, 3.0], [-1.0, 2.5]])
      >>> found.lowest.tolist(), found.highest.tolist()
      ([-1.0, 2.0], [1.0, 3.0])
    """
    score = jnp.asarray(score)
    everything = jnp.concatenate([score[None], jnp.asarray(visited)])
    return Extremes(score, jnp.min(everything, 0), jnp.max(everything, 0))
