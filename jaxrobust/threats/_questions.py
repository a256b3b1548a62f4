"""What attacks and reports ask a threat: its norm, its usual step, its name in words."""

from dataclasses import fields, is_dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrobust.inputs import InputError, concrete


def default_step(threat: Any, steps: int) -> Any:
    """The step size of an attack that is given none: 2.5 times the way there, over the steps.

    Args:
      threat: any threat. It decides itself if it has a method `default_step(steps)`; else its
        radius `eps` does.
      steps: of the attack.

    Returns:
      What the threat's `ascend` takes: a number, `[b]`, or a tuple for a composed threat.

    Raises:
      ValueError: if the threat has neither.

    Example:
      >>> from jaxrobust import threats
      >>> float(threats.default_step(threats.linf(0.125), 10))
      0.03125
      >>> threats.default_step(threats.spatial(30, 3), 10)
      0.25

    References:
      Madry et al., 2018 (arXiv:1706.06083): far enough to cross the ball and come back.
    """
    own = getattr(threat, "default_step", None)
    if own is not None:
        return own(steps)
    if not hasattr(threat, "eps"):
        raise InputError(
            f"step_size must be given for {type(threat).__name__}, which has neither eps nor "
            "default_step(steps)"
        )
    return 2.5 * threat.eps / max(steps, 1)


def norm_of(threat: Any) -> str | None:
    """The norm whose ball a threat is.

    Args:
      threat: any threat.

    Returns:
      "linf", "l2", "l1" or "l0"; `None` for all other threats.

    Example:
      >>> from jaxrobust import threats
      >>> threats.norm_of(threats.l2(0.5)), threats.norm_of(threats.spatial(30, 3))
      ('l2', None)
    """
    return getattr(threat, "norm", None)


def described(threat: Any) -> str:
    """A threat in words, as results name it.

    Args:
      threat: any threat; its attribute `description` if it has one, else its type and its numbers.

    Returns:
      Such as "linf eps 0.1".

    Example:
      >>> from jaxrobust import threats
      >>> threats.described(threats.compose(threats.spatial(30, 3), threats.linf(0.1)))
      'spatial max_degrees 30 max_shift_px 3, then linf eps 0.1'
    """
    own = getattr(threat, "description", None)
    if own is not None:
        return own
    if not is_dataclass(threat):
        return type(threat).__name__
    words = [type(threat).__name__.lower()]
    for field in fields(threat):
        value = getattr(threat, field.name)
        if field.metadata.get("static") and value == field.default:
            continue
        words.append(f"{field.name} {_shown(value)}")
    return " ".join(words)


def _shown(value: Any) -> str:
    """A number as results print it, per example its range; words as they are."""
    if isinstance(value, str):
        return value
    numbers = concrete(value)
    if numbers is None or not (
        jnp.issubdtype(numbers.dtype, jnp.floating) or np.issubdtype(numbers.dtype, np.number)
    ):
        return str(value)
    low, high = float(numbers.min()), float(numbers.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
