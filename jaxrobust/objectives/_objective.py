"""What an objective is: an inner attack and an outer loss, and the passes between them."""

from typing import Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import LogitsFn, misclassified
from jaxrobust.threats import Threat


class Batch(NamedTuple):
    """A training batch.

    Attributes:
      images: `[b, h, w, c]` floating point in [0, 1].
      labels: class indices `[b]`, or probabilities `[b, k]`.
    """

    images: Array
    labels: Array


class Views(NamedTuple):
    """What the inner attack found.

    Attributes:
      images: adversarial images `[b, h, w, c]` by view name; constants.
      extras: per-example arrays `[b, ...]` that the outer loss wants (GAIRAT's kappa).
    """

    images: dict[str, Array]
    extras: dict[str, Array]


class Pass(NamedTuple):
    """One forward pass of the outer loss, in training mode.

    Attributes:
      name: under which the outer loss finds the logits.
      view: which images: "clean", or a view of the inner attack.
    """

    name: str
    view: str


class Objective(Protocol):
    """A min-max recipe.

    An objective is a small pytree: its array leaves (beta, step size) are traced, so sweeping
    them never recompiles; its static fields (number of steps) are structure. The train step,
    and only it, knows BatchNorm modes, devices and precision.

    Attributes:
      attack_statistics: what BatchNorm uses inside the attack: "running" statistics, or the
        statistics of the attacked "batch" itself (the running ones are then left alone).
      passes: the outer forward passes in order. Each updates the running statistics once.
    """

    @property
    def attack_statistics(self) -> Literal["running", "batch"]: ...

    @property
    def passes(self) -> tuple[Pass, ...]: ...

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """Finds the adversarial views of a batch; `key` is one key or one per example."""

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The loss `[b]` to minimise and per-example metrics `[b]`, from logits by pass."""


def default_step_size(threat: Any, steps: int, step_size: ArrayLike | None) -> Any:
    """`step_size`, or 2.5 eps / steps: far enough to cross the ball and come back (Madry)."""
    if step_size is not None:
        return step_size
    if not hasattr(threat, "eps"):
        raise ValueError(f"step_size must be given for {type(threat).__name__}: it has no one eps")
    return 2.5 * threat.eps / max(steps, 1)


def correct(logits: Array, labels: Array) -> Array:
    """`[b]` float32: 1 where the top class is the label (the top label, if soft)."""
    return 1 - misclassified(logits, labels).astype(jnp.float32)
