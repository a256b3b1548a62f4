"""A setting in which robustness to permutations and to l_inf exclude each other.

Ours, in the setting of Tsipras et al. (2019); not a theorem of the papers.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.stats import norm
from jax.typing import ArrayLike


class SpatialAccuracies(NamedTuple):
    """Accuracies of a rule: on clean, attacked, and randomly permuted points."""

    clean: Array
    attacked: Array
    permuted: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class SpatialToy:
    r"""One strong coordinate, which may lie, among many weak ones, which never do together.

    Y = +-1 with equal chance; X_0 = Y with probability p, else -Y; X_t ~ N(c Y / sqrt(d), 1) for
    t = 1 ... d. The spatial map is a uniformly random permutation of the d + 1 coordinates, the
    attack moves every coordinate by at most eps. The rules weigh the strong coordinate by w >= 0:

    .. math:: f_w(x) = \mathrm{sign}\bigl(w x_0 + d^{-1/2} \sum_{t \ge 1} x_t\bigr)

    Weak coordinates are all alike, so that w = 0 hardly notices a permutation, and are all moved
    by an attack; the strong one withstands the attack, and a permutation loses it.

    Args:
      p: probability that X_0 tells the truth, in [1/2, 1].
      c: signal of the weak coordinates together, in standard deviations.
      dim: their number d, static.

    Example:
      >>> from jaxrobust import theory
      >>> toy = theory.SpatialToy()
      >>> for w in (0.0, 4.0, 16.0):
      ...     print([round(float(a), 3) for a in toy.accuracies(w)])
      [0.977, 0.023, 0.979]
      [0.902, 0.796, 0.723]
      [0.9, 0.9, 0.59]

    References:
      Tsipras et al., Robustness May Be at Odds with Accuracy, 2019 (arXiv:1805.12152), for the
      distribution. Kamath et al., 2020 (arXiv:2002.11318), for the question.
    """

    p: ArrayLike = 0.9
    c: ArrayLike = 2.0
    dim: int = field(default=400, metadata={"static": True})

    def eps(self) -> Array:
        """The radius 2 c / sqrt(d), which turns the weak coordinates' signal around."""
        return 2 * jnp.asarray(self.c, jnp.result_type(float)) / self.dim**0.5

    def accuracies(self, w: ArrayLike, *, eps: ArrayLike | None = None) -> SpatialAccuracies:
        """Exact accuracies of the rule `w` `[...]`; `eps` defaults to 2 c / sqrt(d)."""
        w = jnp.asarray(w, jnp.result_type(float))
        radius = self.eps() if eps is None else jnp.asarray(eps, w.dtype)
        p, c, root = jnp.asarray(self.p, w.dtype), jnp.asarray(self.c, w.dtype), self.dim**0.5

        def mixture(mean_true: Array, mean_false: Array, scale: Array | float = 1.0) -> Array:
            return p * norm.cdf(mean_true / scale) + (1 - p) * norm.cdf(mean_false / scale)

        clean = mixture(c + w, c - w)
        shifted = c - radius * root
        attacked = mixture(shifted + w * (1 - radius), shifted - w * (1 + radius))
        # Mostly a weak coordinate comes first, and the strong one is a term of the sum.
        mean = w * c / root + c * (self.dim - 1) / self.dim
        scale = jnp.sqrt(jnp.square(w) + (self.dim - 1) / self.dim)
        displaced = mixture(mean + 1 / root, mean - 1 / root, scale)
        permuted = (clean + self.dim * displaced) / (self.dim + 1)
        return SpatialAccuracies(clean, attacked, permuted)

    def permuted_limit(self, w: ArrayLike) -> Array:
        """Accuracy on permuted points for d to infinity: Phi(c / sqrt(1 + w^2))."""
        w = jnp.asarray(w, jnp.result_type(float))
        return norm.cdf(jnp.asarray(self.c, w.dtype) / jnp.sqrt(1 + jnp.square(w)))

    def attacked_bound(self, clean: ArrayLike) -> Array:
        """Tsipras et al.: what any rule of this clean accuracy keeps for eps >= 2 c / sqrt(d)."""
        clean = jnp.asarray(clean, jnp.result_type(float))
        p = jnp.asarray(self.p, clean.dtype)
        return jnp.minimum((1 - clean) * p / (1 - p), 1)

    def sample(self, key: Array, count: int) -> tuple[Array, Array]:
        """Points `[count, d + 1]` and labels `[count]`, -1 or 1."""
        label_key, truth_key, noise_key = jax.random.split(key, 3)
        dtype = jnp.result_type(float)
        labels = jax.random.rademacher(label_key, (count,), dtype)
        truth = jax.random.bernoulli(truth_key, jnp.asarray(self.p, dtype), (count,))
        strong = jnp.where(truth, labels, -labels)
        signal = jnp.asarray(self.c, dtype) / self.dim**0.5
        weak = jax.random.normal(noise_key, (count, self.dim), dtype) + signal * labels[:, None]
        return jnp.concatenate([strong[:, None], weak], 1), labels

    def score(self, x: Array, w: ArrayLike) -> Array:
        """What the rule takes the sign of: points `[..., d + 1]` -> `[...]`."""
        return jnp.asarray(w, x.dtype) * x[..., 0] + jnp.sum(x[..., 1:], -1) / self.dim**0.5

    def attack(self, x: Array, labels: Array, *, eps: ArrayLike | None = None) -> Array:
        """The worst points `[n, d + 1]` within eps, the same for all w >= 0."""
        radius = self.eps() if eps is None else jnp.asarray(eps, x.dtype)
        return x - radius.astype(x.dtype) * labels[:, None]

    def permute(self, key: Array, x: Array) -> Array:
        """Each point's coordinates in an order of its own."""
        return jax.random.permutation(key, x, axis=1, independent=True)
