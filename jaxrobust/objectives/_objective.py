"""What an objective is: an inner attack and an outer loss, and the passes between them."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn
from jaxrobust.verdicts import misclassified

AttackStatistics = Literal["running", "batch", "update"]
Statistics = Literal["running", "batch"]  # of objectives whose attack leaves them alone


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
      log_weights: `[b]`, logarithms of the examples' weights in the outer loss, or `None` for
        equal ones. The train step normalises them to mean 1 over the batch of all devices.
      batch_stats: running statistics after the attack, where the attack updates them.
    """

    images: dict[str, Array]
    extras: dict[str, Array]
    log_weights: Array | None = None
    batch_stats: Any = None


class Pass(NamedTuple):
    """One forward pass of the outer loss, in training mode.

    Attributes:
      name: under which the outer loss finds the logits.
      view: which images: "clean", or a view of the inner attack.
    """

    name: str
    view: str


class Bound(NamedTuple):
    """Certified margins for the outer loss, over boxes that the inner attack names.

    The network is bounded in evaluation mode, with the running statistics as the outer passes left
    them; they are constants to it.

    Attributes:
      name: under which the outer loss finds the margins `[b, k]`, beside the logits.
      method: of `bounds.margins`.
      lower: the view with the least pixel values.
      upper: the view with the largest.
    """

    name: str = "margins"
    method: Literal["ibp", "crown-ibp", "crown"] = "ibp"
    lower: str = "lower"
    upper: str = "upper"


class Stateful(NamedTuple):
    """A network whose running statistics move with every forward pass of the attack.

    Attributes:
      apply: `(images, batch_stats) -> (logits, batch_stats)`.
      batch_stats: before the attack.
    """

    apply: Callable[[Array, Any], tuple[Array, Any]]
    batch_stats: Any


class Objective(Protocol):
    """A min-max recipe.

    An objective is a small pytree: its array leaves (beta, step size) are traced, so sweeping
    them never recompiles; its static fields (number of steps) are structure. The train step,
    and only it, knows BatchNorm modes, devices and precision.

    Attributes:
      attack_statistics: what BatchNorm uses inside the attack: "running" statistics, or the
        statistics of the attacked "batch" itself: the running ones are then left alone, or, with
        "update", moved by every attack step. With "update" the logits function that `inner` gets
        is a `Stateful`.
      passes: the outer forward passes in order. Each updates the running statistics once.

    An objective may also have an attribute `bound`, a `Bound`: the outer loss then gets certified
    margins beside the logits.
    """

    @property
    def attack_statistics(self) -> AttackStatistics: ...

    @property
    def passes(self) -> tuple[Pass, ...]: ...

    def inner(self, logits_fn: LogitsFn, key: Array, batch: Batch, threat: Threat) -> Views:
        """Finds the adversarial views of a batch; `key` is one key or one per example."""

    def outer(
        self, logits: dict[str, Array], batch: Batch, extras: dict[str, Array]
    ) -> tuple[Array, dict[str, Array]]:
        """The loss `[b]` to minimise and per-example metrics `[b]`, from logits by pass."""


def correct(logits: Array, labels: Array) -> Array:
    """`[b]` float32: 1 where the top class is the label (the top label, if soft)."""
    return 1 - misclassified(logits, labels).astype(jnp.float32)


def check_hard_labels(name: str, batch: Batch) -> None:
    """Refuses the probabilities that CutMix makes of labels, where an objective needs classes.

    Raises:
      InputError: if there are any.
    """
    if batch.labels.ndim != 1:
        raise InputError(
            f"labels must be integer class indices [b] for {name}, got soft labels of shape "
            f"{batch.labels.shape}; leave out batch_augment (CutMix)"
        )
