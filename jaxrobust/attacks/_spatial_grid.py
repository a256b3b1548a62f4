"""The grid attack on rotations and translations."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._spatial_search import Inner, Search, check_counts, searched_part, worst
from jaxrobust.inputs import InputError, as_batch
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.precision import wide_type, widened
from jaxrobust.threats import Threat
from jaxrobust.typing import LogitsFn, Loss


def spatial_grid(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Threat,
    loss: Loss = cross_entropy,
    counts: tuple[int, int, int] = (5, 5, 31),
    inner: Inner | None = None,
    chunk: int = 1,
) -> Attacked:
    """The worst rotation and translation of a grid, for each example separately.

    This is the reference attack on `threats.spatial`. `pgd` takes the same threat, but gradients in
    angle and shift find little. Each axis has its own number of points, equally spaced from limit
    to limit. The unchanged image is also a candidate and wins ties, so an image is returned
    unchanged if no transform makes a difference. Other ties go to the first point in the order
    (right, down, angle).

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      key: one PRNG key, or one per example `[b]`; used by `inner` only.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      threat: `threats.spatial`, another threat with a method `on_grid`, or a composition of one
        such with others; limits may be traced.
      loss: `(logits [b, k], labels) -> [b]`; ranks misclassified images among each other, and
        correctly classified ones likewise.
      counts: points to the right, down, and of the angle; static.
      inner: for a composed threat, the attack on its other parts; it runs at every point of the
        grid, with the transform fixed: `(logits_fn, keys, images, labels, *, threat) -> Attacked`,
        such as `functools.partial(attacks.pgd, steps=5, step_size=2 / 255)`.
      chunk: points evaluated in one forward pass of `chunk * b` images; static. It affects memory,
        not results.

    Returns:
      `Attacked`; `perturbation` is the chosen `threats.Transform` (`degrees` `[b]`, `shift_px`
      `[b, 2]`); for composed threats it is at its index in a tuple.

    Raises:
      ValueError: if the threat has not exactly one spatial part, `inner` is missing or has
        nothing to attack, or a count is less than 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks, threats
      >>> images = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2].set(1.0)
      >>> def logits_fn(x): return jnp.stack([x[:, 2, 2, 0], x[:, 2, 4, 0]], -1)
      >>> attacked = attacks.spatial_grid(logits_fn, jax.random.key(0), images, jnp.array([0]),
      ...     threat=threats.spatial(0, 2), counts=(5, 5, 1))
      >>> attacked.success.tolist(), attacked.perturbation.shift_px.tolist()
      ([True], [[2.0, 0.0]])

    References:
      Engstrom et al., Exploring the Landscape of Spatial Robustness, 2019 (arXiv:1712.02779):
      5 x 5 x 31 points, 3 pixels and 30 degrees on CIFAR-10.
    """
    images, labels = as_batch(images, labels)
    check_grid(counts)
    check_counts(chunk=chunk)
    _, searched = searched_part(threat, inner)
    points = grid(counts)
    keys = per_example_keys(key, len(images))
    each = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, len(images)), searched)

    def at(number: Array) -> Any:
        point = jnp.asarray(points, wide_type(images))[number]
        return jax.vmap(lambda part, x: part.on_grid(point, x))(each, widened(images))

    search = Search(logits_fn, images, labels, threat, loss, inner)
    return worst(
        search, at, lambda n: jax.vmap(fold_keys, (None, 0))(keys, n), len(points), chunk, True
    )


def grid(counts: tuple[int, int, int]) -> np.ndarray:
    """The points (right, down, angle) of a grid on [-1, 1]^3, `[n, 3]`; one point is the middle."""
    axes = [np.linspace(-1, 1, count) if count > 1 else np.zeros(1) for count in counts]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def check_grid(counts: Any) -> None:
    """Raises ValueError unless there are three counts of at least 1."""
    if len(counts) != 3:
        raise InputError(f"counts must be (right, down, angle), got {counts!r}")
    check_counts(**dict(zip(("right", "down", "angle"), counts, strict=True)))
