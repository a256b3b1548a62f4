"""LBGAT: a network of standard training guides the robust one, both trained at once."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_batch, as_number
from jaxrobust.losses import cross_entropy, kl_divergence
from jaxrobust.objectives._attack import from_draw, initial
from jaxrobust.objectives._objective import (
    Batch,
    ObjectiveState,
    Pass,
    Sizes,
    Statistics,
    Views,
    correct,
)
from jaxrobust.objectives._ranges import check_ranges
from jaxrobust.objectives._trades import away_from
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LBGAT:
    r"""LBGAT: logits on adversarial images near those of a clean network, which learns beside.

    .. math:: \frac{1}{k} \|z(x') - z_T(x)\|_2^2 + \mathrm{CE}(z_T(x), y)
              + \beta\, \mathrm{KL}(p(x) \,\|\, p(x'))

    The teacher :math:`z_T`, the experiment's `teacher` (a ResNet-18 in the paper), is trained by
    the same optimizer, on its cross-entropy and on the squared error. It sees clean images alone,
    in training mode, and has running statistics of its own. The attack is TRADES'.

    Cost: `2 * steps + 10` forward units per image, if the teacher is as large as the network.

    Args:
      beta: weight of the divergence; 0 or 6. May be traced.
      steps: attack steps.
      step_size: in the threat's units; default 2.5 eps / steps. May be traced.
      attack_statistics: BatchNorm in the attack: "running" as published, or "batch".

    Example:
      >>> from jaxrobust import objectives
      >>> [p.name for p in objectives.lbgat().passes]
      ['adv', 'clean', 'teacher']

    References:
      Cui et al., Learnable Boundary Guided Adversarial Training, 2021 (arXiv:2011.11164), Eq. 6.
    """

    beta: ArrayLike = 0.0
    steps: int = field(default=10, metadata={"static": True})
    step_size: ArrayLike | None = None
    attack_statistics: Statistics = field(default="running", metadata={"static": True})

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def networks(self) -> tuple[str, ...]:
        """The network that is trained beside."""
        return ("teacher",)

    @property
    def passes(self) -> tuple[Pass, ...]:
        return (Pass("adv", "adv"), Pass("clean", "clean"), Pass("teacher", "clean"))

    def init_state(self, sizes: Sizes) -> ObjectiveState:
        """Nothing: the teacher's parameters are among the network's."""
        return {}

    def draw(
        self, key: Array, batch: Batch, threat: Threat, state: ObjectiveState | None = None
    ) -> dict[str, Array]:
        """`start` `[b, h, w, c]`, Gaussian noise of standard deviation 0.001."""
        images, _ = as_batch(*batch)
        return {"start": initial(key, images, threat, "gaussian")}

    def attack(
        self,
        logits_fn: LogitsFn,
        batch: Batch,
        threat: Threat,
        draws: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> Views:
        """TRADES' attack on the robust network."""
        loss = away_from("clean", "kl", logits_fn, batch)
        options: Any = {"steps": self.steps, "step_size": self.step_size, "kind": "gaussian"}
        found = from_draw(logits_fn, batch, threat, draws["start"], loss=loss, **options)
        return Views({"adv": found.images}, {})

    def inner(
        self,
        logits_fn: LogitsFn,
        key: Array,
        batch: Batch,
        threat: Threat,
        state: ObjectiveState | None = None,
    ) -> Views:
        """`attack` with what `draw` draws."""
        return self.attack(logits_fn, batch, threat, self.draw(key, batch, threat, state), state)

    def outer(
        self,
        logits: dict[str, Array],
        batch: Batch,
        extras: dict[str, Array],
        state: ObjectiveState | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """The squared error between the two networks, the teacher's error, and the divergence."""
        clean, adv, teacher = (logits[name] for name in ("clean", "adv", "teacher"))
        taught = cross_entropy(teacher, batch.labels)
        near = jnp.mean(jnp.square(adv - teacher), -1).astype(taught.dtype)
        boundary = kl_divergence(clean, adv)
        metrics = {
            "accuracy": correct(clean, batch.labels),
            "robust_accuracy": correct(adv, batch.labels),
            "teacher_accuracy": correct(teacher, batch.labels),
        }
        as_number(self.beta, name="beta", lead=taught.shape)
        return near + taught + jnp.asarray(self.beta, taught.dtype) * boundary, metrics
