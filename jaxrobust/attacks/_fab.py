"""FAB, the fast adaptive boundary attack: the smallest perturbation that fools the network."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._attacked import Attacked, finite, where
from jaxrobust.attacks._box_hyperplane import to_hyperplane
from jaxrobust.attacks._fab_boundaries import Linearise, boundary_to, nearest_boundary
from jaxrobust.attacks._norms import norm_of
from jaxrobust.inputs import (
    as_batch,
    as_choice,
    as_count,
    as_labels,
    as_logits,
    as_number,
    as_radius,
)
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import margin
from jaxrobust.precision import shown, widened
from jaxrobust.typing import LogitsFn, Norm
from jaxrobust.verdicts import hard_labels, misclassified

# Stands in for "no adversarial point yet" where a number is needed.
FAR = 1e10


class _Best(NamedTuple):
    """The nearest misclassified point so far; per example."""

    images: Array
    distance: Array  # inf where there is none
    loss: Array


class _Settings(NamedTuple):
    """What does not change between restarts; numbers as arrays of the images' dtype."""

    norm: Norm
    steps: int
    unroll: int
    alpha_max: Array
    eta: Array
    beta: Array


def fab(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
    targets: ArrayLike | None = None,
    steps: int = 100,
    restarts: int = 1,
    alpha_max: ArrayLike = 0.1,
    eta: ArrayLike = 1.05,
    beta: ArrayLike = 0.9,
    unroll: int = 1,
) -> Attacked:
    """A minimum-norm attack: walks along the decision boundary towards the clean image.

    Every step linearises the classifier, projects both the iterate and the clean image onto the
    decision hyperplane within the box (exactly), and moves to a mean of the two that favours the
    iterate. A misclassified iterate is remembered if it is the nearest so far, and is then pulled
    back towards the clean image. `eps` affects only the noise radius of restarts, so one run serves
    a whole curve of radii through `distance`.

    A step costs two forward and one backward pass; the untargeted form `k - 1` backward passes.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`; used only by restarts.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "linf", "l2" or "l1", over all values of an image. Static.
      eps: radius in image units within which a perturbation counts as success, `[]` or `[b]`;
        may be traced; `inf` if only the smallest perturbation is wanted.
      targets: class indices `[b]` for the targeted form (FAB-T): the boundary between label and
        target is linearised; any wrong class counts. Default: the nearest of all boundaries.
      steps: number of steps, static.
      restarts: runs, static; the first starts at the clean image, later ones from noise of half
        the smaller of `eps` and the distance found so far.
      alpha_max: largest weight of the clean image's projection in the mean.
      eta: overshoot of the projections.
      beta: the share of its displacement that a misclassified iterate keeps.
      unroll: steps per iteration of the compiled loop.

    Returns:
      `Attacked`. `distance` `[b]` is the norm of the smallest adversarial perturbation found,
      whatever `eps` (0 where the clean image is misclassified, inf where none was found), and
      `perturbation` `[b, h, w, c]` is that perturbation (0 where none was found). `success` is
      `distance <= eps`; `images` are the adversarial images there and the clean ones elsewhere.
      `loss` is the margin of the nearest point, or of the clean image where there is none.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.full((1, 2, 2, 1), 0.5).at[0, 0, 0, 0].set(0.9)
      >>> attacked = attacks.fab(lambda x: logits_fn(x - 0.5), jax.random.key(0), images,
      ...     jnp.array([0]), norm="linf", eps=0.2)
      >>> bool(attacked.success[0]), round(float(attacked.distance[0]), 3)
      (True, 0.101)

    References:
      Croce and Hein, Minimally Distorted Adversarial Examples with a Fast Adaptive Boundary
      Attack, 2020 (arXiv:1907.02044), Algorithm 1 without its final search; FAB-T: 2003.01690.
    """
    images, labels = as_batch(images, labels)
    labels = hard_labels(labels)
    _check(norm, steps, restarts, unroll, alpha_max=alpha_max, eta=eta, beta=beta)
    clean, images = images, widened(images)
    radius = as_radius(eps, batch=len(images), infinite=True, unit=" (image units)")
    radius = jnp.broadcast_to(radius.astype(images.dtype), (len(images),))
    numbers = (jnp.asarray(value, images.dtype) for value in (alpha_max, eta, beta))
    settings = _Settings(norm, steps, min(unroll, steps), *numbers)
    keys = per_example_keys(key, len(images))
    prepared = network(logits_fn, clean) if len(clean) else logits_fn

    def evaluate(x: Array) -> Array:
        return as_logits(checked_logits(prepared(shown(x, clean)), labels), "logits")

    if not len(images):
        nothing = jnp.zeros(0, images.dtype)
        return Attacked(clean, nothing.astype(bool), nothing, perturbation=images, distance=nothing)
    if targets is None:
        linearise = nearest_boundary(evaluate, labels, norm)
    else:
        targets = jnp.asarray(as_labels(targets, batch=len(images), name="targets"))
        linearise = boundary_to(evaluate, labels, targets)

    def run(restart: Array | int, best: _Best) -> _Best:
        start = images
        if restarts > 1:
            reach = jnp.minimum(jnp.minimum(best.distance, radius), FAR)
            reach = jnp.where(restart > 0, reach, 0)
            noise = jax.vmap(_direction, in_axes=(0, None, None))(
                fold_keys(keys, restart), images[0], norm
            )
            start = jnp.clip(images + noise * (reach / 2)[:, None, None, None], 0, 1)
        return _run(evaluate, linearise, settings, clean, labels, start, best)[1]

    best = _clean(evaluate, images, labels)
    best = run(0, best) if restarts == 1 else jax.lax.fori_loop(0, restarts, run, best)
    success = best.distance <= radius
    return jax.lax.stop_gradient(
        Attacked(
            images=where(success, best.images, images).astype(clean.dtype),
            success=success,
            loss=best.loss,
            perturbation=best.images - images,
            distance=best.distance,
        )
    )


def _check(norm: str, steps: int, restarts: int, unroll: int, **numbers: ArrayLike) -> None:
    as_choice(norm, name="norm", choices=("linf", "l2", "l1"))
    for name, count in (("steps", steps), ("restarts", restarts), ("unroll", unroll)):
        as_count(count, name=name)
    as_number(numbers["alpha_max"], name="alpha_max", low=0, high=1, lead=())
    as_number(numbers["eta"], name="eta", low=0, lead=())
    as_number(numbers["beta"], name="beta", low=0, high=1, lead=())


def _clean(evaluate: LogitsFn, images: Array, labels: Array) -> _Best:
    """The state before the first step: a misclassified clean image is at distance 0."""
    logits = evaluate(images)
    distance = jnp.where(misclassified(logits, labels), 0, jnp.inf).astype(images.dtype)
    return _Best(images, distance, margin(logits, labels))


def _run(
    evaluate: LogitsFn,
    linearise: Linearise,
    settings: _Settings,
    clean: Array,
    labels: Array,
    start: Array,
    best: _Best,
) -> tuple[Array, _Best]:
    """One run from one start: the last iterate and the best point."""
    images = widened(clean)

    def size(values: Array) -> Array:
        return norm_of(values, settings.norm)[:, None, None, None]

    def step(_: int, state: tuple[Array, _Best]) -> tuple[Array, _Best]:
        x, best = state
        from_x, from_clean = _onto_boundary(*linearise(x), x, images, settings.norm)
        a, b = jnp.maximum(size(from_x), 1e-8), jnp.maximum(size(from_clean), 1e-8)
        alpha = jnp.clip(a / (a + b), 0, settings.alpha_max)
        x = (x + settings.eta * from_x) * (1 - alpha)
        x = jnp.clip(x + (images + settings.eta * from_clean) * alpha, 0, 1)
        logits = evaluate(x)
        wrong = misclassified(logits, labels)
        seen = shown(x, clean).astype(x.dtype)
        distance = norm_of(seen - images, settings.norm)
        # A squared difference can underflow to a distance of 0, which only the clean image has.
        nearer = wrong & (distance < best.distance) & (distance > 0)
        best = where(nearer, _Best(seen, distance, margin(logits, labels)), best)
        return where(wrong, images + settings.beta * (x - images), x), best

    return jax.lax.fori_loop(0, settings.steps, step, (start, best), unroll=settings.unroll)


def _onto_boundary(
    values: Array, normals: Array, x: Array, images: Array, norm: Norm
) -> tuple[Array, Array]:
    """Displacements of `x` and of the clean images to the boundary as linearised at `x`."""
    batch = len(x)
    points = jnp.stack([x, images]).reshape(2, batch, -1)
    flat = normals.reshape(1, batch, -1)
    change = jnp.sum(flat[0] * (points[1] - points[0]), -1)
    excess = jnp.stack([values, finite(values + change)])[..., None]
    both = to_hyperplane(points, flat, excess, norm=norm).reshape(2, *x.shape)
    return both[0], both[1]


def _direction(key: Array, image: Array, norm: Norm) -> Array:
    """A random direction of norm 1."""
    if norm == "linf":
        noise = jax.random.uniform(key, image.shape, image.dtype, -1, 1)
    else:
        noise = jax.random.normal(key, image.shape, image.dtype)
    return noise / norm_of(noise[None], norm)[0]
