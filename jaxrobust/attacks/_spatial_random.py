"""Random members of a threat: the worst of several, and the average over them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, losses_of, network
from jaxrobust.attacks._attacked import Attacked
from jaxrobust.attacks._spatial_search import Inner, Search, check_counts, searched_part, worst
from jaxrobust.inputs import as_batch
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.precision import shown, widened
from jaxrobust.threats import Threat, batched
from jaxrobust.typing import LogitsFn, Loss
from jaxrobust.verdicts import misclassified, predicted


class AverageCase(NamedTuple):
    """What random perturbations do to each example.

    Attributes:
      accuracy: `[b]`, share of correctly classified draws.
      changed: `[b]`, share of the draws whose predicted class differs from that of the unperturbed
        image (the "fooling rate", which does not depend on labels).
      loss: `[b]`, mean loss over the draws.
    """

    accuracy: Array
    changed: Array
    loss: Array


def worst_of_k(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Threat,
    loss: Loss = cross_entropy,
    k: int = 10,
    clean: bool = True,
    inner: Inner | None = None,
    chunk: int = 1,
) -> Attacked:
    """The worst of `k` random members of a threat, drawn for each example separately.

    With `threats.spatial` this is the random attack of Engstrom et al., which their training uses
    with k = 10. A misclassified image ranks before a correct one, then the higher loss, then the
    earlier draw.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      threat: any threat; its random starts are the draws.
      loss: `(logits [b, k], labels) -> [b]`.
      k: number of draws, static. The first draws of a larger `k` are those of a smaller one.
      clean: whether the unchanged image is also a candidate; without it, an image may be
        misclassified although its draws are not, as in the published attack.
      inner: for a threat composed of one spatial part and others, the attack on the others at
        every draw of the transform, see `spatial_grid`. Default: all parts are drawn.
      chunk: draws evaluated in one forward pass of `chunk * b` images; static.

    Returns:
      `Attacked`, with the chosen perturbation.

    Raises:
      ValueError: if `k` or `chunk` is less than 1, or `inner` does not fit the threat.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks, threats
      >>> images = jnp.zeros((1, 5, 5, 1)).at[0, 2, 4].set(1.0)
      >>> def logits_fn(x): return jnp.stack([x[:, 2, 4, 0], x[:, 2, 0, 0]], -1)
      >>> attacked = attacks.worst_of_k(logits_fn, jax.random.key(0), images, jnp.array([0]),
      ...     threat=threats.spatial(180, 0), k=50)
      >>> attacked.success.tolist(), bool(abs(attacked.perturbation.degrees[0]) > 135)
      ([True], True)

    References:
      Engstrom et al., Exploring the Landscape of Spatial Robustness, 2019 (arXiv:1712.02779).
    """
    images, labels = as_batch(images, labels)
    check_counts(k=k, chunk=chunk)
    drawn = threat if inner is None else searched_part(threat, inner)[1]
    verbs, keys = batched(drawn, len(images)), per_example_keys(key, len(images))
    search = Search(logits_fn, images, labels, threat, loss, inner)

    def draw(number: Array) -> Any:
        return verbs.init(fold_keys(fold_keys(keys, number), 0), widened(images))

    def inner_keys(numbers: Array) -> Array:
        return jax.vmap(lambda number: fold_keys(fold_keys(keys, number), 1))(numbers)

    return worst(search, draw, inner_keys, k, chunk, clean)


def average_case(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Threat,
    loss: Loss = cross_entropy,
    draws: int = 1,
) -> AverageCase:
    """Accuracy under random members of a threat: an average case, not a worst case.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      threat: any threat; its random starts are the draws (uniform angles and shifts for
        `threats.spatial`).
      loss: `(logits [b, k], labels) -> [b]`.
      draws: draws per example, static; Kamath et al. take one.

    Returns:
      `AverageCase`, per example: share of correct draws, share of draws that change the
      prediction, mean loss.

    Raises:
      ValueError: if `draws` is less than 1.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks, threats
      >>> images = jnp.zeros((1, 5, 5, 1)).at[0, 2, 4].set(1.0)
      >>> def logits_fn(x): return jnp.stack([x[:, :, 3:].sum((1, 2, 3)), jnp.full(1, 0.5)], -1)
      >>> average = attacks.average_case(logits_fn, jax.random.key(0), images, jnp.array([0]),
      ...     threat=threats.spatial(180, 0), draws=200)
      >>> bool(0.3 < average.accuracy[0] < 0.6)
      True

    References:
      Kamath et al., Can we have it all? On the Trade-off between Spatial and Adversarial
      Robustness of Neural Networks, 2020 (arXiv:2002.11318).
    """
    images, labels = as_batch(images, labels)
    check_counts(draws=draws)
    if not len(images):
        return AverageCase(*[jnp.zeros(0, jnp.float32)] * 3)
    wide = widened(images)
    logits_fn = network(logits_fn, images)
    verbs, keys = batched(threat, len(images)), per_example_keys(key, len(images))
    clean = predicted(checked_logits(logits_fn(images), labels))

    def step(number: Array | int, total: AverageCase) -> AverageCase:
        z = verbs.init(fold_keys(fold_keys(keys, number), 0), wide)
        logits = logits_fn(shown(jnp.clip(verbs.apply(z, wide), 0, 1), images))
        losses = losses_of(loss, logits, labels)
        right = ~misclassified(logits, labels)
        changed = predicted(logits) != clean
        found = AverageCase(right.astype(jnp.float32), changed.astype(jnp.float32), losses)
        return jax.tree.map(jnp.add, total, found)

    shapes = jax.eval_shape(lambda: losses_of(loss, logits_fn(images), labels))
    nothing = jnp.zeros(len(images), jnp.float32)
    total = AverageCase(nothing, nothing, jnp.zeros(shapes.shape, shapes.dtype))
    total = jax.lax.fori_loop(0, draws, step, total)
    return jax.lax.stop_gradient(jax.tree.map(lambda leaf: leaf / draws, total))
