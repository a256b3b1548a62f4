"""MixedNUTS as one logits function, and its surrogate for attacks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.mixing._mix import checked_share
from jaxrobust.mixing._mixed import as_leaf, as_pytree, float_type
from jaxrobust.mixing._nuts import Clamp, mixednuts_mix, mixednuts_surrogate
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MixedNUTS:
    """See `mixed_nuts`."""

    std: Any
    rob: Any
    s: Any
    p: Any
    c: Any
    alpha: Any
    surrogate_alpha: Any
    raw_share: Any
    top_k: int = field(metadata={"static": True})
    clamp: Clamp = field(metadata={"static": True})

    def __call__(self, images: Array) -> Array:
        """Images `[b, h, w, c]` in [0, 1] -> log-probabilities `[b, k]`: what is evaluated."""
        return mixednuts_mix(
            self.std(images), self.rob(images), alpha=self.alpha, **self._transformation()
        )

    @property
    def surrogate(self) -> Callable[[Array], Array]:
        """The logits function, a pytree too, whose gradients an attack follows."""
        return jax.tree_util.Partial(_surrogate, self)

    def _transformation(self) -> dict[str, Any]:
        return {
            "s": self.s,
            "p": self.p,
            "c": self.c,
            "top_k": self.top_k,
            "clamp": self.clamp,
        }


def _surrogate(nuts: MixedNUTS, images: Array) -> Array:
    return mixednuts_surrogate(
        nuts.std(images),
        nuts.rob(images),
        alpha=nuts.surrogate_alpha,
        raw_share=nuts.raw_share,
        **nuts._transformation(),
    )


def mixed_nuts(
    std: LogitsFn,
    rob: LogitsFn,
    *,
    s: ArrayLike,
    p: ArrayLike,
    c: ArrayLike,
    alpha: ArrayLike,
    surrogate_alpha: ArrayLike,
    raw_share: ArrayLike = 0.9,
    top_k: int = 250,
    clamp: Clamp = "gelu",
) -> MixedNUTS:
    """MixedNUTS of two classifiers as one logits function.

    The accurate base enters by its class alone, which has no gradient, and the transformation is
    nearly flat: gradients of the result itself say little about its robustness. Attacks follow
    those of `.surrogate`, and count what they find against the result.

    Args:
      std: the accurate base, images -> logits `[b, k]`.
      rob: the robust base.
      s: scale of the transformation, see `mixednuts_map`; like `p`, `c` and the weights it can be
        changed without a recompilation.
      p: its power.
      c: its bias.
      alpha: weight of the ROBUST base in [0, 1].
      surrogate_alpha: the same in the surrogate.
      raw_share: share of the robust base that the surrogate does not transform.
      top_k: logits that the normalisation sees.
      clamp: the nonlinearity.

    Returns:
      A callable pytree, images `[b, h, w, c]` in [0, 1] -> log-probabilities `[b, k]`.

    Raises:
      ValueError: if a weight is outside of [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import mixing
      >>> def base(images): return images.mean((1, 2)) @ jnp.array([[1.0, 0.0, -1.0]])
      >>> settings = mixing.MIXED_NUTS["cifar10"].options
      >>> nuts = mixing.mixed_nuts(base, base, **settings)
      >>> images = jnp.ones((2, 4, 4, 1))
      >>> nuts(images).shape, nuts.surrogate(images).shape
      ((2, 3), (2, 3))

    References:
      Bai et al., 2024 (arXiv:2402.02263).
    """
    weights = {"alpha": alpha, "surrogate_alpha": surrogate_alpha, "raw_share": raw_share}
    for name, value in weights.items():
        checked_share(name, value, float_type())
    return MixedNUTS(
        std=as_pytree(std),
        rob=as_pytree(rob),
        s=as_leaf(s),
        p=as_leaf(p),
        c=as_leaf(c),
        alpha=as_leaf(alpha),
        surrogate_alpha=as_leaf(surrogate_alpha),
        raw_share=as_leaf(raw_share),
        top_k=top_k,
        clamp=clamp,
    )
