"""Square with its settings bound, in parts; finished examples are dropped between parts."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks._attack import check_ball
from jaxrobust.attacks._attacked import Attacked, nothing_attacked
from jaxrobust.attacks._square import SquareState, square_chunk, square_init
from jaxrobust.inputs import as_batch, as_count, as_number
from jaxrobust.keys import per_example_keys
from jaxrobust.threats import norm_of
from jaxrobust.typing import LogitsFn


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Square:
    """`attacks.square` with its settings bound, one run; also an `attacks.InParts`.

    Its noise is drawn from the unchanged keys; run `r` of `attacks.square` folds `r` into the keys.

    Args:
      threat: the ball of a norm.
      queries: number of queries after the one for the start.
      p_init: the share of the image in the first windows.
      chunk: queries of a part.

    Raises:
      ValueError: if the threat is not the ball of a norm, or a number is out of range.

    Example:
      >>> from jaxrobust import attacks, threats
      >>> attacks.Square(threat=threats.linf(0.1)).parts
      20
    """

    threat: Any
    queries: int = field(default=5000, metadata={"static": True})
    p_init: float = field(default=0.8, metadata={"static": True})
    chunk: int = field(default=250, metadata={"static": True})
    gradients: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_ball(self)
        as_count(self.queries, name="queries", least=0)
        as_count(self.chunk, name="chunk")
        as_number(self.p_init, name="p_init", low=0, high=1, positive=True)

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch until the last example is done."""
        images, labels = as_batch(images, labels)
        if not len(images):
            return nothing_attacked(images)
        keys = per_example_keys(key, len(images))
        state = self.begin(logits_fn, keys, images, labels)
        state = square_chunk(
            logits_fn, state, keys, images, labels, **self._ball,
            first_query=0, queries=self.queries, p_init=self.p_init,
        )  # fmt: skip
        return self.end(state, images)

    @property
    def parts(self) -> int:
        """The number of parts for all queries."""
        return -(-self.queries // self.chunk)

    def begin(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> SquareState:
        """The start and its query."""
        return square_init(logits_fn, key, images, labels, **self._ball)

    def go_on(
        self,
        logits_fn: LogitsFn,
        number: Array,
        state: SquareState,
        key: Array,
        images: Array,
        labels: Array,
    ) -> SquareState:
        """The state after `chunk` more queries, or those that are left."""
        first = jnp.asarray(number, jnp.int32) * self.chunk
        return square_chunk(
            logits_fn, state, key, images, labels, **self._ball, first_query=first,
            queries=jnp.minimum(self.chunk, self.queries - first), p_init=self.p_init,
        )  # fmt: skip

    def done(self, state: SquareState) -> Array:
        """`[b]` bool: the margin has reached 0."""
        return state.done

    def end(self, state: SquareState, images: Array) -> Attacked:
        """The best images, misclassified or not, and the queries that they took."""
        found = state.images.astype(images.dtype)
        return Attacked(found, state.success, state.loss, queries=state.queries)

    def passes(self, classes: int, *, targeted: bool) -> tuple[int, int]:
        """Forward and backward passes of an example at most."""
        return self.queries + 1, 0

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as shown in reports."""
        return {"loss": "margin", "steps": self.queries}

    @property
    def _ball(self) -> dict[str, Any]:
        return {"norm": norm_of(self.threat), "eps": self.threat.eps}
