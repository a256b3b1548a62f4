"""Training attacks in several norms: APGD from the clean image, the worst visited point."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attacks import Attacked, apgd
from jaxrobust.inputs import InputError
from jaxrobust.objectives._objective import Batch
from jaxrobust.precision import widened
from jaxrobust.threats import Union, described, norm_of
from jaxrobust.typing import NORMS, LogitsFn

SPARSITY = 0.05  # share of the values that the first l_1 steps move


def balls(threat: Any, objective: str, *needed: str) -> dict[str, Any]:
    """The balls of a union by their norms, in its order.

    Args:
      threat: of the objective.
      objective: its name, for the message.
      *needed: norms that must be among them.

    Returns:
      Threats by norm.

    Raises:
      InputError: for another threat, or a missing norm.
    """
    members = threat.threats if isinstance(threat, Union) else ()
    found = {norm_of(member): member for member in members}
    if not found or not set(found) <= set(NORMS) or not set(needed) <= set(found):
        wanted = f" with {' and '.join(needed)}" if needed else ""
        raise InputError(
            f"threat must be a union of norms{wanted} for {objective}, such as union(linf=8/255, "
            f"l2=0.5, l1=12); got {described(threat)}"
        )
    return found  # type: ignore[return-value]


def strongest(logits_fn: LogitsFn, batch: Batch, ball: Any, *, steps: int) -> Attacked:
    """The visited point of highest cross-entropy, the clean image included.

    `success` is whether any visited point was misclassified.
    """
    images = batch.images
    return apgd(
        logits_fn,
        jax.random.key(0),  # no random start, no random steps
        images,
        batch.labels,
        norm=norm_of(ball),  # type: ignore[arg-type]
        eps=ball.eps,
        steps=steps,
        keep="loss",
        start=jnp.zeros_like(widened(images)),
        sparsity=SPARSITY if norm_of(ball) == "l1" else None,
    )


def picked(choice: Array, candidates: list[Array]) -> Array:
    """Per example, the candidate `[b, ...]` of the chosen number `[b]`."""
    stacked = jnp.stack(candidates)
    index = choice.reshape(1, -1, *[1] * (stacked.ndim - 2)).astype(jnp.int32)
    return jnp.take_along_axis(stacked, index, axis=0)[0]
