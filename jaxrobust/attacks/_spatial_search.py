"""The search for the worst of a list of candidates, shared by the grid and the random attack."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust.attackable import checked_logits, losses_of, network
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.inputs import InputError, as_count
from jaxrobust.precision import shown, widened
from jaxrobust.threats import Threat, batched, compose, described
from jaxrobust.typing import Loss
from jaxrobust.verdicts import misclassified

Inner = Callable[..., Attacked]  # (logits_fn, keys, images, labels, *, threat) -> Attacked
# Candidate number `[]` -> the perturbations of all examples.
Candidates = Callable[[Array], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fixed:
    """A threat fixed at one perturbation per example, with nothing left to search.

    The perturbation is split into columns `[b]`, because a threat's leaves are numbers.
    """

    threat: Any
    columns: tuple[Array, ...]
    tree: Any = field(metadata={"static": True})
    shapes: tuple[tuple[int, ...], ...] = field(metadata={"static": True})

    def init(self, key: Array, x: Array) -> tuple[()]:
        """Nothing."""
        return ()

    def ascend(self, z: tuple[()], grad: tuple[()], step_size: Any) -> tuple[()]:
        """Nothing."""
        return ()

    def project(self, z: tuple[()], x: Array) -> tuple[()]:
        """Nothing."""
        return ()

    def apply(self, z: tuple[()], x: Array) -> Array:
        """The transformed image."""
        left, leaves = list(self.columns), []
        for shape in self.shapes:
            size = math.prod(shape)
            leaves.append(jnp.stack(left[:size]).reshape(shape))
            left = left[size:]
        return self.threat.apply(jax.tree.unflatten(self.tree, leaves), x)


def fixed(threat: Any, z: Any) -> Fixed:
    """A threat fixed at the perturbations of a batch."""
    leaves, tree = jax.tree.flatten(z)
    columns = [column for leaf in leaves for column in leaf.reshape(len(leaf), -1).T]
    return Fixed(threat, tuple(columns), tree, tuple(leaf.shape[1:] for leaf in leaves))


class Search(NamedTuple):
    """A batch, and how its candidates are evaluated."""

    logits_fn: Any
    images: Array
    labels: Array
    threat: Threat
    loss: Loss
    inner: Inner | None = None


def worst(
    search: Search, candidates: Candidates, keys: Callable, number: int, chunk: int, clean: bool
) -> Attacked:
    """The worst of `number` candidates per example, with `chunk` of them in each forward pass.

    The order is misclassified before correct, then the higher loss, then the earlier candidate; NaN
    never counts as higher. `keys(numbers [m])` are PRNG keys `[m, b]` for the inner attack.
    """
    batch = len(search.images)
    if not batch:
        return nothing_attacked(search.images)._replace(perturbation=_none_of(search))
    wide = _repeated(search, chunk)
    if search.inner is None:  # an inner attack prepares its own
        wide = wide._replace(logits_fn=network(search.logits_fn, wide.images))

    def body(step: Array, best: Attacked) -> Attacked:
        # The last pass may repeat the last candidate: a tie with itself changes nothing.
        numbers = jnp.minimum(step * chunk + jnp.arange(chunk), number - 1)
        z = jax.vmap(candidates)(numbers)
        flat = jax.tree.map(lambda leaf: leaf.reshape(chunk * batch, *leaf.shape[2:]), z)
        found = _judged(wide, flat, keys(numbers).reshape(-1))
        for index in range(chunk):
            part = slice(index * batch, (index + 1) * batch)
            new = jax.tree.map(lambda leaf, part=part: leaf[part], found)
            better = new.success & ~best.success
            better |= (new.success == best.success) & (new.loss > best.loss)
            best = where(better, new, best)
        return best

    best = _untouched(search, competes=clean)
    best = jax.lax.fori_loop(0, -(-number // chunk), body, best)
    return jax.lax.stop_gradient(best)


def _judged(search: Search, z: Any, keys: Array) -> Attacked:
    """The images that `z` gives, after the inner attack if there is one."""
    if search.inner is not None:
        return _attacked_inside(search, search.inner, z, keys)
    verbs = batched(search.threat, len(search.images))
    images = jnp.clip(verbs.apply(z, widened(search.images)), 0, 1)
    images = shown(images, search.images)
    logits = checked_logits(search.logits_fn(images), search.labels)
    losses = losses_of(search.loss, logits, search.labels)
    return Attacked(images, misclassified(logits, search.labels), losses, perturbation=z)


def searched_part(threat: Any, inner: Inner | None) -> tuple[int | None, Any]:
    """The one threat with a grid, and its index among composed ones (None if it is alone)."""
    if hasattr(threat, "on_grid"):
        if inner is not None:
            raise InputError(
                "inner needs a threat composed of spatial and others, got spatial alone"
            )
        return None, threat
    parts = getattr(threat, "parts", ())
    places = [place for place, part in enumerate(parts) if hasattr(part, "on_grid")]
    if len(places) != 1:
        raise InputError(
            "threat must be threats.spatial, or composed of one spatial and others, "
            f"got {described(threat)} with {len(places)} spatial parts"
        )
    if inner is None:
        raise InputError("inner must be given for a composed threat: the attack on its other parts")
    return places[0], parts[places[0]]


def check_counts(**counts: Any) -> None:
    """Raises ValueError unless each is an integer of at least 1."""
    for name, count in counts.items():
        as_count(count, name=name)


def _attacked_inside(search: Search, inner: Inner, z: Any, keys: Array) -> Attacked:
    """The inner attack on the other parts, with the transform fixed."""
    place, searched = searched_part(search.threat, inner)
    assert place is not None
    parts = list(search.threat.parts)  # type: ignore[attr-defined]
    parts[place] = fixed(searched, z)
    found = inner(search.logits_fn, keys, search.images, search.labels, threat=compose(*parts))
    perturbation = list(found.perturbation)
    perturbation[place] = z
    return Attacked(found.images, found.success, found.loss, perturbation=tuple(perturbation))


def _untouched(search: Search, *, competes: bool) -> Attacked:
    """The clean images and the zero perturbation, which loses if it is not a candidate."""
    logits_fn = network(search.logits_fn, search.images)
    if competes:
        logits = checked_logits(logits_fn(search.images), search.labels)
        losses = losses_of(search.loss, logits, search.labels)
        wrong = misclassified(logits, search.labels)
    else:
        logits = jax.eval_shape(logits_fn, search.images)
        losses = jax.eval_shape(search.loss, logits, search.labels)
        losses = jnp.full(losses.shape, -jnp.inf, losses.dtype)
        wrong = jnp.zeros(len(search.images), bool)
    return Attacked(search.images, wrong, losses, perturbation=_none_of(search))


def _none_of(search: Search) -> Any:
    """The zero perturbation."""
    batch = len(search.images)
    keys = jax.random.split(jax.random.key(0), batch)
    shapes = jax.eval_shape(batched(search.threat, batch).init, keys, widened(search.images))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _repeated(search: Search, chunk: int) -> Search:
    """The batch repeated several times, including its radii."""

    def repeat(leaf: Array) -> Array:
        return jnp.tile(leaf, (chunk,) + (1,) * (leaf.ndim - 1)) if leaf.ndim else leaf

    return search._replace(
        images=repeat(search.images),
        labels=repeat(search.labels),
        threat=jax.tree.map(repeat, search.threat),
    )
