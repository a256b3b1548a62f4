"""TRADES."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import pgd
from jaxrobust.attacks._attacked import LogitsFn, fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy, kl_divergence
from jaxrobust.objectives._objective import Batch, Pass, Views, correct, default_step_size
from jaxrobust.threats import Threat


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Trades:
    r"""TRADES: cross-entropy on clean images plus `beta` times the boundary error's surrogate.

    .. math:: \min_\theta \mathbb{E}\, \mathrm{CE}(f(x), y)
              + \beta \max_{x' \in B(x)} \mathrm{KL}(p(x) \,\|\, p(x'))

    The attack maximises the divergence from the clean output, starting at Gaussian noise of
    standard deviation 0.001 that is neither clipped nor projected before the first gradient.
    The clean output is computed once, not at every step: it is constant.

    The authors' code runs three forward passes in training mode: clean for the cross-entropy,
    adversarial, and clean once more for the divergence. Loss and gradients are those of two
    passes (unless dropout draws another mask); BatchNorm's running statistics are not, since
    they are updated in the order clean, adversarial, clean.

    Args:
      beta: the trade-off, 1/lambda of the paper. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".
      clean_passes: 2 for the authors' three forward passes, 1 for the efficient form.

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.trades(beta=6.0, clean_passes=2).passes]
      ['clean', 'adv', 'clean_again']

    References:
      Zhang et al., 2019 (arXiv:1901.08573), Eq. 5 and Algorithm 1.
    """

    beta: ArrayLike = 6.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Literal["running", "batch"] = field(
        default="running", metadata={"static": True}
    )
    clean_passes: Literal[1, 2] = field(default=1, metadata={"static": True})

    @property
    def passes(self) -> tuple[Pass, ...]:
        twice = (Pass("clean", "clean"), Pass("adv", "adv"))
        return (*twice, Pass("clean_again", "clean")) if self.clean_passes == 2 else twice

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """PGD on KL(p(x) || p(x')) from Gaussian noise."""
        target = jax.lax.stop_gradient(logits_fn(batch.images))
        attacked = pgd(
            logits_fn,
            key,
            batch.images,
            batch.labels,
            threat=threat,
            loss=lambda logits, labels: kl_divergence(target, logits),
            steps=self.steps,
            step_size=default_step_size(threat, self.steps, self.step_size),
            start=gaussian_start(key, batch.images, threat),
        )
        return Views({"adv": attacked.images}, {})

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """`losses.trades`, with the divergence's clean logits of their own pass if there is one."""
        clean, adv = logits["clean"], logits["adv"]
        natural = cross_entropy(clean, batch.labels)
        boundary = kl_divergence(logits.get("clean_again", clean), adv)
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "natural_loss": natural,
            "boundary_loss": boundary,
        }
        return natural + jnp.asarray(self.beta, natural.dtype) * boundary, metrics


def gaussian_start(key: Array, images: Array, threat: Any, *, scale: float = 1e-3) -> Any:
    """Gaussian noise in the shape of the threat's perturbations, one draw per example.

    Only for threats on pixel values: noise of this scale has no meaning in degrees or pixels of
    shift, for which `None` (the threat's own random start) is returned.
    """
    shape = jax.eval_shape(threat.init, jax.random.key(0), images[0])
    if not hasattr(shape, "shape") or shape.shape != images.shape[1:]:
        return None
    keys = fold_keys(per_example_keys(key, len(images)), 0)
    noise = jax.vmap(lambda k: jax.random.normal(k, images.shape[1:], images.dtype))(keys)
    return scale * noise
