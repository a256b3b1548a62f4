"""Several threats of which the attacker picks one per image."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError
from jaxrobust.threats._l1 import l1
from jaxrobust.threats._l2 import l2
from jaxrobust.threats._linf import linf
from jaxrobust.threats._questions import default_step, described, norm_of
from jaxrobust.threats._threat import Perturbation, Threat

BALLS: dict[str, Any] = {"linf": linf, "l2": l2, "l1": l1}


class Picked(NamedTuple):
    """A perturbation of a union.

    Attributes:
      member: `[]` float, the position of the threat in use; a number that steps leave alone.
      each: one perturbation of every member threat.
    """

    member: Array
    each: tuple[Perturbation, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Union:
    """The images that at least one of several threats reaches; made by `union`.

    Attributes:
      threats: the member threats, in order.
    """

    threats: tuple[Any, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name per member: its norm, or its type; numbered where a type occurs again."""
        kinds = [norm_of(threat) or type(threat).__name__.lower() for threat in self.threats]
        return tuple(
            f"{kind} {kinds[:place].count(kind) + 1}" if kinds[:place].count(kind) else kind
            for place, kind in enumerate(kinds)
        )

    def init(self, key: Array, x: Array) -> Picked:
        """A member drawn uniformly, with a random perturbation."""
        keys = jax.random.split(key, len(self.threats) + 1)
        member = jax.random.randint(keys[0], (), 0, len(self.threats)).astype(jnp.float32)
        pairs = zip(self.threats, keys[1:], strict=True)
        return Picked(member, tuple(threat.init(own, x) for threat, own in pairs))

    def ascend(self, z: Picked, grad: Picked, step_size: Any) -> Picked:
        """A step of the member in use; the gradients of the others are 0."""
        sizes = step_size if isinstance(step_size, tuple) else (step_size,) * len(self.threats)
        each = zip(self.threats, z.each, grad.each, sizes, strict=True)
        return z._replace(
            each=tuple(threat.ascend(own, slope, size) for threat, own, slope, size in each)
        )

    def project(self, z: Picked, x: Array) -> Picked:
        """Every member's perturbation back into its own set."""
        each = zip(self.threats, z.each, strict=True)
        return z._replace(each=tuple(threat.project(own, x) for threat, own in each))

    def apply(self, z: Picked, x: Array) -> Array:
        """The image as the member in use changes it."""
        each = zip(self.threats, z.each, strict=True)
        images = [threat.apply(own, x) for threat, own in each]
        return jax.lax.select_n(z.member.astype(jnp.int32), *images)

    def default_step(self, steps: int) -> tuple:
        """Each member's own."""
        return tuple(default_step(threat, steps) for threat in self.threats)

    @property
    def description(self) -> str:
        """The members in words, in order."""
        return " or ".join(map(described, self.threats))


def union(*threats: Threat, **radii: ArrayLike) -> Union:
    """A union of threats: the attacker moves each image by one of them, whichever works.

    An image withstands the union if it withstands every member. `attacks.pgd` draws the member of
    each image and restart at random; `attacks.PGD`, of evaluations, attacks every member. Attacks
    that need the ball of one norm (`apgd`, `fab`, `square`) and `fgsm`, which has no random start,
    refuse a union; run them on each of `threats`, or use `evaluators.union`.

    Args:
      *threats: the members, such as `linf(8/255)`; before those given by name.
      **radii: balls by the name of their norm, `linf=8/255, l2=0.5, l1=12`, in the given order;
        radii as the functions of these names take them.

    Returns:
      The threat, a pytree with the members' radii as leaves. `threats` has the members in order
      and `names` their names ("linf", "l2", "l1", or the type in lower case).

    Raises:
      ValueError: for fewer than two members, an unknown norm, two balls of one norm, or a radius
        that its norm refuses.

    Example:
      >>> from jaxrobust import threats
      >>> both = threats.union(linf=8 / 255, l1=12)
      >>> both.names
      ('linf', 'l1')
      >>> threats.described(threats.union(threats.linf(0.1), threats.spatial(30, 3)))
      'linf eps 0.1 or spatial max_degrees 30 max_shift_px 3'

    References:
      Tramer and Boneh, Adversarial Training and Robustness for Multiple Perturbations, 2019
      (arXiv:1904.13000). Maini et al., Adversarial Robustness Against the Union of Multiple
      Perturbation Models, 2020 (arXiv:1909.04068).
    """
    members = (*threats, *(_ball(name, eps) for name, eps in radii.items()))
    if len(members) < 2:
        raise InputError(f"threats: union needs at least two members, got {len(members)}")
    for member in threats:
        if not hasattr(member, "project"):
            raise InputError(
                f"threats: members of a union must be threats, such as linf(8/255), got {member!r}"
            )
    norms = [norm for member in members if (norm := norm_of(member))]
    twice = next((norm for norm in norms if norms.count(norm) > 1), None)
    if twice:
        raise InputError(
            f"threats: union needs different norms, got {twice} {norms.count(twice)} times; "
            "the ball with the larger radius contains the other"
        )
    return Union(members)


def _ball(name: str, eps: ArrayLike) -> Any:
    if name not in BALLS:
        raise InputError(
            f"union has no norm {name!r}: choose from {', '.join(BALLS)}; other threats are given "
            "without a name"
        )
    try:
        return BALLS[name](eps)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
