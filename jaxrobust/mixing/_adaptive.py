"""Mixed classifiers as adaptive attackers see them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError
from jaxrobust.mixing._loss import evading_loss
from jaxrobust.mixing._mix import checked_share
from jaxrobust.mixing._mixed import Mixed, MixedOutputs, as_leaf, as_pytree, float_type
from jaxrobust.typing import LogitsFn, Loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guided:
    """See `guided`."""

    logits_fn: Any
    guide: Any

    def __call__(self, images: Array) -> Array:
        """Logits `[b, k]` of the classifier, derivatives of the guide."""
        return _value_of(self.logits_fn(images), self.guide(images))

    def judge(self, loss: Loss, images: Array, labels: Array) -> tuple[Array, Array]:
        """Losses `[b]` with values of the classifier and gradients of the guide; its logits."""
        logits = jax.lax.stop_gradient(self.logits_fn(images))
        return _value_of(loss(logits, labels), loss(self.guide(images), labels)), logits


def guided(logits_fn: LogitsFn, *, guide: LogitsFn) -> Guided:
    """A classifier whose attackers follow another one's gradients.

    For classifiers without useful gradients of their own, such as `mixed_nuts`: losses are
    differentiated at the guide's logits, but success, the best point and step sizes go by the
    losses and logits of the classifier itself. Every attack takes the result: the passes of an
    attack's loss as stated, FAB's differences of logits and PGD likewise; Square and the
    evaluation's verdicts see the classifier alone.

    Args:
      logits_fn: the classifier, images -> logits `[b, k]`.
      guide: what the attacks differentiate, such as `MixedNUTS.surrogate`.

    Returns:
      A callable pytree with the classifier's values.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import mixing
      >>> def flat(x): return jnp.round(x.sum((1, 2)) @ jnp.array([[1.0, -1.0]]))
      >>> def smooth(x): return x.sum((1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> both, images = mixing.guided(flat, guide=smooth), jnp.full((1, 2, 2, 1), 0.4)
      >>> both(images).tolist(), jax.grad(lambda x: both(x)[0, 0])(images)[0, 0, 0].tolist()
      ([[2.0, -2.0]], [1.0])

    References:
      Bai et al., 2024 (arXiv:2402.02263); the transfer setting of the authors' evaluation.
    """
    return Guided(as_pytree(logits_fn), as_pytree(guide))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Evading:
    """See `evading`."""

    outputs: Any
    weight: Any

    def __call__(self, images: Array) -> Array:
        """Log-probabilities `[b, k]` of the mixture."""
        return self.outputs(images).log_probs

    def judge(self, loss: Loss, images: Array, labels: Array) -> tuple[Array, Array]:
        """`evading_loss` on top of an attack's loss, and the mixture's log-probabilities."""
        outputs = self.outputs(images)
        base = loss(outputs.log_probs, labels)
        return evading_loss(base, outputs.gamma, weight=self.weight), outputs.log_probs


def evading(mixed: Mixed, *, weight: ArrayLike) -> Evading:
    """A mixed classifier whose attackers also make images look clean to its mixing network.

    PGD and APGD then maximise `evading_loss` of whatever loss they are given, which the authors'
    adaptive AutoAttack does (`apgd-ce` and `apgd-t` on it); FAB and Square have no loss and attack
    the mixture as it is.

    Args:
      mixed: a mixed classifier with a mixing network.
      weight: w of `evading_loss`, a number, or `[b]` for batches of that size.

    Returns:
      A callable pytree with the values of `mixed`.

    Raises:
      ValueError: if `mixed` has no mixing network or `weight` is outside of [0, 1].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import losses, mixing, models
      >>> base, images = models.digits_cnn(width=4), jnp.zeros((2, 8, 8, 1))
      >>> logits_fn = models.logits_fn(base, base.init(jax.random.key(0), images))
      >>> def gamma(std, rob): return std["stage1"].mean((1, 2, 3))
      >>> mixed = mixing.mixed(logits_fn, logits_fn, gamma=gamma)
      >>> attacked = mixing.evading(mixed, weight=0.2)
      >>> losses_, logits = attacked.judge(losses.cross_entropy, images, jnp.array([0, 1]))
      >>> losses_.shape, bool((logits == mixed(images)).all())
      ((2,), True)

    References:
      Bai et al., 2023 (arXiv:2301.12554); the adaptive attacks of the authors' evaluation.
    """
    if mixed.gamma is None:
        raise InputError("mixed must have a mixing network (gamma) to evade; it has a fixed alpha")
    checked_share("weight", weight, float_type())
    return Evading(jax.tree_util.Partial(_outputs, mixed), as_leaf(weight))


def _outputs(mixed: Mixed, images: Array) -> MixedOutputs:
    return mixed.outputs(images)


def _value_of(value: Array, derivative: Array) -> Array:
    """The first, exactly, with the derivatives of the second."""
    nothing = derivative - jax.lax.stop_gradient(derivative)
    # The difference of an infinity and itself is none.
    nothing = jnp.where(jnp.isfinite(derivative), nothing, jnp.zeros_like(nothing))
    return jax.lax.stop_gradient(value) + nothing.astype(value.dtype)
