"""Two classifiers mixed into one logits function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned, as_network_logits, as_number
from jaxrobust.mixing._mix import checked_share, log_mixture
from jaxrobust.typing import LogitsFn

Features = Mapping[str, Array]


class MixedOutputs(NamedTuple):
    """What a mixed classifier computes on the way.

    Attributes:
      log_probs: `[b, k]`, the mixture.
      std_logits: `[b, k]` of the accurate base, before its scale.
      rob_logits: `[b, k]` of the robust base, before its scale.
      alpha: weight of the robust base, `[b]`, or as it was given.
      gamma: `[b]`, the mixing network's logit before the range of alpha is applied, or None.
    """

    log_probs: Array
    std_logits: Array
    rob_logits: Array
    alpha: Array
    gamma: Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixed:
    """See `mixed`."""

    std: Any
    rob: Any
    alpha: Any
    gamma: Any
    std_scale: Any
    rob_scale: Any
    alpha_scale: Any
    alpha_bias: Any
    detach: bool = field(metadata={"static": True})

    def __call__(self, images: Array) -> Array:
        """Images `[b, h, w, c]` in [0, 1] -> log-probabilities `[b, k]`."""
        return self.outputs(images).log_probs

    def outputs(self, images: Array) -> MixedOutputs:
        """The log-probabilities and what they were made of."""
        if self.gamma is None:
            std_logits, rob_logits = self.std(images), self.rob(images)
            gamma, alpha = None, self.alpha
        else:
            std_logits, std_features = self.std.with_features(images)
            rob_logits, rob_features = self.rob.with_features(images)
            if self.detach:
                std_features, rob_features = jax.lax.stop_gradient((std_features, rob_features))
            gamma, alpha = self.gamma(std_features, rob_features), None
        as_network_logits(std_logits, batch=len(images), name="std")
        as_network_logits(rob_logits, batch=len(images), name="rob")
        if gamma is not None and jnp.shape(gamma) != (len(images),):
            raise InputError(
                f"gamma must return one mixing logit per image, [b], here [{len(images)}], got "
                f"shape {jnp.shape(gamma)}"
            )
        std, rob = aligned(std_logits=std_logits, rob_logits=rob_logits)
        std = jax.nn.log_softmax(jnp.asarray(self.std_scale, std.dtype) * std)
        rob = jax.nn.log_softmax(jnp.asarray(self.rob_scale, rob.dtype) * rob)
        if gamma is None:
            robust = jnp.asarray(alpha, std.dtype)
            weights = (1 - robust, robust)
        else:
            weights = self._weights(gamma.astype(std.dtype))
        log_probs = log_mixture((std, rob), weights)
        return MixedOutputs(log_probs, std_logits, rob_logits, weights[1], gamma)

    def _weights(self, gamma: Array) -> tuple[Array, Array]:
        """The accurate and the robust base's, from the mixing logit."""
        scale, bias = (jnp.asarray(x, gamma.dtype) for x in (self.alpha_scale, self.alpha_bias))
        # Not 1 - alpha: for a large gamma that would round to zero, and its gradient with it.
        accurate = jax.nn.relu(1 - bias - scale) + scale * jax.nn.sigmoid(-gamma)
        return accurate, bias + scale * jax.nn.sigmoid(gamma)


def mixed(
    std: LogitsFn,
    rob: LogitsFn,
    *,
    alpha: ArrayLike | None = None,
    gamma: Callable[[Features, Features], Array] | None = None,
    std_scale: ArrayLike = 1.0,
    rob_scale: ArrayLike = 1.0,
    alpha_scale: ArrayLike = 1.0,
    alpha_bias: ArrayLike = 0.0,
    detach: bool = False,
) -> Mixed:
    """An accurate and a robust classifier as one logits function.

    It is a pytree: passed to a jitted function as an argument, another `alpha` or other
    parameters of the bases do not recompile. It goes wherever a logits function goes.

    Args:
      std: the accurate base, images -> logits `[b, k]`.
      rob: the robust base.
      alpha: weight of the ROBUST base in [0, 1]. This or `gamma`.
      gamma: the mixing function: (features of `std`, features of `rob`) -> mixing logit `[b]`, as
        `models.gamma_fn` makes it; then `alpha_bias + alpha_scale * sigmoid(gamma)` is the weight.
        The bases must have `with_features(images) -> (logits, features by name)`, as those of
        `models.logits_fn` have.
      std_scale: factor on the accurate base's logits.
      rob_scale: factor on the robust base's logits.
      alpha_scale: width of the range of the weight; 1 while the network is trained.
      alpha_bias: its lower end; 0 while the network is trained.
      detach: no gradient through the mixing function to the images: a weaker attacker, who does
        not know the network.

    Returns:
      A callable, images `[b, h, w, c]` in [0, 1] -> log-probabilities `[b, k]`; its
      `outputs(images)` has the bases' logits, alpha and gamma too.

    Raises:
      ValueError: unless exactly one of `alpha` and `gamma` is given and the weights lie in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import mixing
      >>> def std(images): return images.mean((1, 2)) @ jnp.array([[9.0, -9.0]])
      >>> def rob(images): return images.mean((1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> both = mixing.mixed(std, rob, alpha=0.8)
      >>> both(jnp.ones((1, 4, 4, 1))).shape
      (1, 2)

    References:
      Bai et al., 2023 (arXiv:2301.12554).
    """
    if (alpha is None) == (gamma is None):
        raise InputError("give alpha, a number, or gamma, a mixing function: one of the two")
    if gamma is None:
        alpha = checked_share("alpha", alpha, float_type())  # type: ignore[arg-type]
    else:
        for name, base in (("std", std), ("rob", rob)):
            if not hasattr(base, "with_features"):
                raise InputError(
                    f"{name} must have with_features(images), as models.logits_fn(...) has: "
                    "the mixing function reads the bases' features"
                )
        _check_range(alpha_scale, alpha_bias)
    as_number(std_scale, name="std_scale", low=0)
    as_number(rob_scale, name="rob_scale", low=0)
    return Mixed(
        std=as_pytree(std),
        rob=as_pytree(rob),
        alpha=alpha,
        gamma=as_pytree(gamma),
        std_scale=as_leaf(std_scale),
        rob_scale=as_leaf(rob_scale),
        alpha_scale=as_leaf(alpha_scale),
        alpha_bias=as_leaf(alpha_bias),
        detach=detach,
    )


def float_type() -> jnp.dtype:
    """float32, or float64 where that is switched on."""
    return jnp.result_type(float)


def as_leaf(value: ArrayLike) -> Array:
    """A number as an array: traced where the pytree that holds it is an argument of `jit`."""
    return jnp.asarray(value, float_type())


def as_pytree(function: Any) -> Any:
    """A plain function, which is not a pytree, as one without leaves; pytrees as they are."""
    if function is not None and jax.tree_util.all_leaves([function]):
        return jax.tree_util.Partial(function)
    return function


def _check_range(scale: ArrayLike, bias: ArrayLike) -> None:
    if isinstance(scale, jax.core.Tracer) or isinstance(bias, jax.core.Tracer):
        return
    low, high = float(np.min(bias)), float(np.max(np.add(bias, scale)))
    if not (0 <= low <= high <= 1 + 1e-6):  # .96 + .04 is more than 1 in float32
        raise InputError(
            "alpha_bias to alpha_bias + alpha_scale must be a range in [0, 1], "
            f"got alpha_bias={bias!r}, alpha_scale={scale!r}"
        )
