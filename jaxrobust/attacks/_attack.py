"""The interface of attacks that evaluations use."""

from collections.abc import Sequence
from typing import Any, Protocol

from jax import Array

from jaxrobust.attacks._attacked import Attacked
from jaxrobust.inputs import InputError
from jaxrobust.threats import described, norm_of
from jaxrobust.typing import NORMS, LogitsFn


class Attack(Protocol):
    """An attack with its settings bound, such as `attacks.PGD(threat=...)`; any such callable.

    A pytree with its radii as leaves is compiled once for all radii. A targeted attack takes the
    target classes `[b]` as a fifth argument. AutoAttack's attacks also have a `threat`, `settings`
    for reports, and `passes(classes, targeted=...)`, the forward and backward passes per example.
    `gradients = False` marks attacks that use no gradients, and `distances = True` those that
    search for the smallest perturbation.
    """

    def __call__(
        self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array, /
    ) -> Attacked:
        """Attacks a batch.

        Args:
          logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
          key: one PRNG key, or one per example `[b]`.
          images: `[b, h, w, c]`, floating point in [0, 1].
          labels: `[b]`.
        """


class InParts(Protocol):
    """An attack that AutoAttack runs in parts; finished examples are dropped between parts.

    The state is a pytree with the batch on the leading axis of every leaf. Examples are dropped and
    regrouped between parts, so nothing in it may depend on the rest of the batch.

    Attributes:
      parts: the largest number of calls of `go_on`.
    """

    parts: int

    def begin(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Any:
        """The state before the first part."""

    def go_on(
        self,
        logits_fn: LogitsFn,
        number: Array,
        state: Any,
        key: Array,
        images: Array,
        labels: Array,
    ) -> Any:
        """The state after part `number`, an integer `[]` counted from 0. The keys stay the same."""

    def done(self, state: Any) -> Array:
        """`[b]` bool: further parts would not change the example."""

    def end(self, state: Any, images: Array) -> Attacked:
        """The result."""


def check_ball(attack: Any, norms: Sequence[str] = NORMS) -> None:
    """Raises unless the threat of an attack is the ball of a norm that the attack supports.

    Args:
      attack: the attack whose field `threat` is checked.
      norms: the norms that the attack supports.

    Raises:
      InputError: if the threat is not such a ball.
    """
    threat = attack.threat
    if not hasattr(threat, "project"):  # JAX rebuilds pytrees around anything
        return
    if norm_of(threat) not in norms or not hasattr(threat, "eps"):
        raise InputError(
            f"threat of {type(attack).__name__} must be the ball of a norm ({', '.join(norms)}), "
            f"got {described(threat)}; PGD attacks any threat"
        )


def check_linf(attack: Any) -> None:
    """Raises unless the threat of an attack is the l_inf ball.

    Raises:
      InputError: if it is another threat.
    """
    threat = attack.threat
    if hasattr(threat, "project") and not (norm_of(threat) == "linf" and hasattr(threat, "eps")):
        raise InputError(
            f"threat of {type(attack).__name__} must be the l_inf ball, got {described(threat)}; "
            "APGD attacks the balls of all norms"
        )
