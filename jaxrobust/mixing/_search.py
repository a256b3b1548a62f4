"""The training-free search for MixedNUTS' transformation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from jaxrobust.inputs import InputError, as_array, as_count, check_number
from jaxrobust.mixing._nuts import Clamp, mixednuts_map


class NutsSearch(NamedTuple):
    """The result of `mixednuts_search`, NumPy float64, indexed `[s, c, p]`.

    Attributes:
      objective: share of the wrong clean predictions that keep a margin of at least `quantile`.
      quantile: the margin that the required share of right attacked predictions has.
      alpha: weight of the robust base, `1 / (1 + quantile)`.
      saturated: the margins are 1 to rounding (quantile above 1 - 3e-6): the comparison of the two
        sets, and so the objective, means little there.
      ties: `[m, 4]`, (s, c, p, alpha) of all minimisers, the largest weight of the accurate base
        first.
    """

    objective: np.ndarray
    quantile: np.ndarray
    alpha: np.ndarray
    saturated: np.ndarray
    ties: np.ndarray


def mixednuts_search(
    attacked_right: ArrayLike,
    clean_wrong: ArrayLike,
    *,
    s: ArrayLike,
    c: ArrayLike,
    p: ArrayLike,
    beta: float = 98.5,
    top_k: int = 250,
    clamp: Clamp = "gelu",
) -> NutsSearch:
    """Finds MixedNUTS' transformation on a grid, without training.

    Fewest wrong clean predictions of the robust base may keep a margin that the accurate base
    cannot overrule, while `beta` percent of its right predictions under attack keep one. Runs on
    the host in float64. Several points often tie; the published choices are made by hand among
    them, preferring a weight of the accurate base that is not tiny.

    Args:
      attacked_right: `[n, k]` logits of the robust base, of attacked images that it classifies
        correctly; the attack minimises the margin.
      clean_wrong: `[m, k]` logits of the robust base, of clean images that it gets wrong.
      s: `[i]` scales to try; log-spaced in the published searches.
      c: `[j]` biases to try.
      p: `[l]` powers to try.
      beta: percent of the right attacked predictions to keep.
      top_k: see `mixednuts_map`.
      clamp: see `mixednuts_map`.

    Returns:
      `NutsSearch`.

    Raises:
      ValueError: if a set of logits is empty or `beta` is outside of [0, 100].

    Example:
      >>> import numpy as np
      >>> from jaxrobust.mixing import mixednuts_search
      >>> attacked = np.array([[4.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
      >>> wrong = np.array([[2.0, 1.9, 0.0], [1.0, 0.9, 0.8]])
      >>> found = mixednuts_search(attacked, wrong, s=[1.0, 4.0], c=[0.0], p=[1.0, 2.0])
      >>> found.objective.shape, found.ties.shape[1]
      ((2, 1, 2), 4)

    References:
      Bai et al., 2024 (arXiv:2402.02263), Section 4 and Algorithm 1.
    """
    as_count(top_k, name="top_k", least=2)
    check_number(beta, "beta must be a percentage in [0, 100],", low=0, high=100)
    given = {"attacked_right": attacked_right, "clean_wrong": clean_wrong}
    sets = [np.asarray(as_array(x, name=name), np.float64) for name, x in given.items()]
    for name, logits in zip(("attacked_right", "clean_wrong"), sets, strict=True):
        if logits.ndim != 2 or not len(logits):
            raise InputError(f"{name} must be logits [n, k] with n >= 1, got shape {logits.shape}")
    axes = [np.atleast_1d(np.asarray(x, np.float64)) for x in (s, c, p)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    # The margins of confident predictions differ from 1 by less than float32 resolves.
    with jax.enable_x64(True):
        points = jnp.asarray(grid.reshape(-1, 3))
        tail = jnp.asarray(1 - beta / 100, jnp.float64)
        found = _objectives(*map(jnp.asarray, sets), points, tail, top_k=top_k, clamp=clamp)
    counts, quantile = (np.asarray(x).reshape(grid.shape[:-1]) for x in found)
    alpha = 1 / (1 + quantile)
    best = counts == counts.min()
    ties = np.concatenate([grid[best], alpha[best][:, None]], 1)
    ties = ties[np.argsort(ties[:, 3], kind="stable")]
    return NutsSearch(counts / len(sets[1]), quantile, alpha, quantile > 1 - 3e-6, ties)


@functools.partial(jax.jit, static_argnames=("top_k", "clamp"))
def _objectives(
    attacked_right: Array,
    clean_wrong: Array,
    points: Array,
    tail: Array,
    *,
    top_k: int,
    clamp: Clamp,
) -> tuple[Array, Array]:
    """Per grid point (s, c, p): how many wrong ones pass, and the margin to pass."""

    def one(point: Array) -> tuple[Array, Array]:
        def margins(logits: Array) -> Array:
            s, c, p = point
            mapped = mixednuts_map(logits, s=s, c=c, p=p, top_k=top_k, clamp=clamp)
            top = jax.lax.top_k(jax.nn.softmax(mapped), 2)[0]
            return top[:, 0] - top[:, 1]

        quantile = jnp.quantile(margins(attacked_right), tail)
        passing = margins(clean_wrong) >= jnp.minimum(quantile, 1 - 1e-9)
        return passing.sum(), quantile

    return jax.lax.map(one, points)
