"""Several threats, one after the other."""

from dataclasses import dataclass
from typing import Any

import jax
from jax import Array

from jaxrobust.inputs import InputError
from jaxrobust.threats._questions import default_step, described
from jaxrobust.threats._threat import Perturbation, Threat


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Compose:
    """Threats applied in order, each to the image that the one before returned."""

    parts: tuple[Any, ...]

    def init(self, key: Array, x: Array) -> tuple[Perturbation, ...]:
        """A random perturbation of every part."""
        perturbations = []
        for part, part_key in zip(self.parts, jax.random.split(key, len(self.parts)), strict=True):
            z = part.init(part_key, x)
            x = part.apply(z, x)
            perturbations.append(z)
        return tuple(perturbations)

    def ascend(self, z: tuple, grad: tuple, step_size: Any) -> tuple[Perturbation, ...]:
        """Each part steps by its own size, or all by the same."""
        sizes = step_size if isinstance(step_size, tuple) else (step_size,) * len(self.parts)
        return tuple(
            part.ascend(part_z, part_grad, size)
            for part, part_z, part_grad, size in zip(self.parts, z, grad, sizes, strict=True)
        )

    def project(self, z: tuple, x: Array) -> tuple[Perturbation, ...]:
        """Each part is projected around the image that the projected parts before it make."""
        projected = []
        for part, part_z in zip(self.parts, z, strict=True):
            inside = part.project(part_z, x)
            x = part.apply(inside, x)
            projected.append(inside)
        return tuple(projected)

    def default_step(self, steps: int) -> tuple:
        """Each part's own."""
        return tuple(default_step(part, steps) for part in self.parts)

    @property
    def description(self) -> str:
        """The parts in words, in order."""
        return ", then ".join(map(described, self.parts))

    def apply(self, z: tuple, x: Array) -> Array:
        """The parts' perturbations, one after the other."""
        for part, part_z in zip(self.parts, z, strict=True):
            x = part.apply(part_z, x)
        return x


def compose(*threats: Threat) -> Compose:
    """A threat that applies several, in the given order.

    Args:
      *threats: two or more threats. The perturbation is the tuple of theirs; the step size of
        an attack is one number for all, or a tuple with one for each.

    Returns:
      The threat, a pytree with the parts' radii as leaves.

    Raises:
      ValueError: if no threat is given.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> both = threats.compose(threats.linf(0.1), threats.l2(0.05))
      >>> x = jnp.full((2, 2, 1), 0.5)
      >>> z = both.project((jnp.ones_like(x), jnp.ones_like(x)), x)
      >>> both.apply(z, x).ravel().round(4).tolist()
      [0.625, 0.625, 0.625, 0.625]
    """
    if not threats:
        raise InputError("threats: compose needs at least one threat, got none")
    return Compose(tuple(threats))
