"""What a threat is: four verbs on the perturbation of one image."""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.inputs import InputError

Perturbation = Any  # a pytree of arrays; each threat has its own


class Threat(Protocol):
    """The set that an attacker may move one image in.

    A threat is a small pytree whose array leaves are its radii: shared `[]` or one per example
    `[b]`. The verbs are written for ONE image `[h, w, c]` in [0, 1]; `batched` vmaps them.
    A verb never draws randomness but from the key that it is given.

    A threat may also have an attribute `norm` ("linf", "l2", "l1", "l0") if it is that norm's ball,
    a method `default_step(steps)`, and a text `description`. With a method `on_grid(point, x)`, the
    perturbation at a point (right, down, angle) of [-1, 1]^3, `attacks.spatial_grid` searches it.
    """

    def init(self, key: Array, x: Array) -> Perturbation:
        """A random perturbation of `x` inside the set."""

    def ascend(self, z: Perturbation, grad: Perturbation, step_size: Any) -> Perturbation:
        """One steepest-ascent step of length `step_size` in the threat's own geometry."""

    def project(self, z: Perturbation, x: Array) -> Perturbation:
        """The perturbation brought back into the set, the image into [0, 1]."""

    def apply(self, z: Perturbation, x: Array) -> Array:
        """The perturbed image; differentiable in `z`."""


class BatchedThreat(NamedTuple):
    """The four verbs over a batch: keys `[b]`, images `[b, h, w, c]`, perturbations `[b, ...]`."""

    init: Any
    ascend: Any
    project: Any
    apply: Any


def batched(threat: Threat, batch_size: int) -> BatchedThreat:
    """The threat's verbs vmapped over a batch, with shared and per-example radii.

    Args:
      threat: any `Threat`; every leaf has shape `[]` or `[batch_size]`.
      batch_size: number of images `b`.

    Returns:
      A `BatchedThreat`. `ascend(z, grads, step_size)` takes a step size of shape `[]` or `[b]`
      (or, for `compose`, a tuple of them, one per part).

    Raises:
      ValueError: if this is no threat, or a radius is neither shared nor one per example.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import threats
      >>> verbs = threats.batched(threats.linf(0.1), 2)
      >>> images = jnp.full((2, 4, 4, 1), 0.5)
      >>> float(verbs.project(jnp.ones_like(images), images).max())
      0.10000000149011612
    """
    # The other two are for attacks that take steps; a search over a grid needs none.
    if not (hasattr(threat, "init") and hasattr(threat, "apply")):
        raise InputError(f"threat must be a set such as threats.linf(8 / 255), got {threat!r:.80}")
    for leaf in jax.tree.leaves(threat):
        if jnp.shape(leaf) not in ((), (batch_size,)):
            raise InputError(
                f"a radius of {type(threat).__name__} has shape {jnp.shape(leaf)}; "
                f"it must be one number or one per example, shape ({batch_size},)"
            )
    axes = per_example_axes(threat)

    def over_batch(verb: str, *in_axes: Any) -> Any:
        def call(part: Threat, *args: Any) -> Any:
            return getattr(part, verb)(*args)

        return jax.vmap(call, in_axes=(axes, *in_axes))

    def ascend(z: Perturbation, grads: Perturbation, step_size: Any) -> Perturbation:
        return over_batch("ascend", 0, 0, per_example_axes(step_size))(threat, z, grads, step_size)

    return BatchedThreat(
        init=lambda keys, images: over_batch("init", 0, 0)(threat, keys, images),
        ascend=ascend,
        project=lambda z, images: over_batch("project", 0, 0)(threat, z, images),
        apply=lambda z, images: over_batch("apply", 0, 0)(threat, z, images),
    )


def per_example_axes(tree: Any) -> Any:
    """For vmap: axis 0 of every leaf that has one, `None` for shared numbers."""
    return jax.tree.map(lambda leaf: 0 if jnp.ndim(leaf) else None, tree)
