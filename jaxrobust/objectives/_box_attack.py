"""The attack of certified training: the image of largest loss that sign steps visit in a box."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, prepare
from jaxrobust.inputs import InputError, as_number
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.objectives._gradient import over_images
from jaxrobust.objectives._objective import Batch
from jaxrobust.precision import shown, widened
from jaxrobust.threats import Threat, described, norm_of
from jaxrobust.typing import LogitsFn


class Box(NamedTuple):
    """Images between two.

    Attributes:
      lower: `[b, h, w, c]`.
      upper: `[b, h, w, c]`.
    """

    lower: Array
    upper: Array


def box_of(threat: Threat, images: Array, scale: ArrayLike = 1.0) -> Box:
    """The l_inf ball of `scale` times the threat's radius, cut with [0, 1], in float32 or better.

    Raises:
      InputError: for any other threat, whose intervals would be those of a larger set.
    """
    if norm_of(threat) != "linf":
        raise InputError(f"threat must be linf for certified training, got {described(threat)}")
    of_threat: Any = threat
    eps = over_images(of_threat.eps, images, "eps") * over_images(scale, images, "attack_scale")
    wide = widened(images)
    return Box(jnp.maximum(wide - eps, 0), jnp.minimum(wide + eps, 1))


def worst_of_box(
    logits_fn: LogitsFn,
    key: Array,
    batch: Batch,
    box: Box,
    *,
    steps: int,
    restarts: int,
    relative_step: ArrayLike | None,
) -> Array:
    """The image of largest cross-entropy among all that the attack visits, `[b, h, w, c]`.

    It is in float32 or better; the network is shown it in the images' dtype.

    Each run starts uniformly in a box of the same size around the image, cut to the box, and takes
    sign steps of `relative_step` half-widths, which become smaller in long runs.

    Args:
      logits_fn: the network as the attack sees it.
      key: one key, or one per example.
      batch: hard labels.
      box: the images may be in.
      steps: of each run; a run visits one image more.
      restarts: runs.
      relative_step: in half-widths of the box; default max(1/4, 2 / steps).
    """
    images, keys = widened(batch.images), per_example_keys(key, len(batch.images))
    width = box.upper - box.lower
    size = max(0.25, 2 / steps) if relative_step is None else relative_step
    as_number(size, name="relative_step", lead=())
    sizes = jnp.asarray([_decay(steps, i) for i in range(steps)], images.dtype)
    sizes = sizes * jnp.asarray(size, images.dtype)

    def judged(x: Array) -> Array:
        logits = checked_logits(logits_fn(shown(x, batch.images)), batch.labels)
        return cross_entropy(logits, batch.labels)

    judge = prepare(judged, images)

    def better(x: Array, losses: Array, best: tuple[Array, Array]) -> tuple[Array, Array]:
        larger = losses > best[1]
        shape = larger.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.where(shape, x, best[0]), jnp.where(larger, losses, best[1])

    def run(best: tuple[Array, Array], restart: Array) -> tuple[tuple[Array, Array], None]:
        noise = noise_of(fold_keys(keys, restart), images)
        start = jnp.clip(images + noise * width, box.lower, box.upper)

        def step(i: Array, state: tuple[Array, tuple[Array, Array]]) -> Any:
            x, best = state
            losses, transpose = jax.vjp(judge, x)
            (grads,) = transpose(jnp.ones_like(losses))
            best = better(x, losses, best)
            move = sizes[i] * width / 2 * jnp.sign(jnp.nan_to_num(grads))
            return jnp.clip(x + move, box.lower, box.upper), best

        x, best = jax.lax.fori_loop(0, steps, step, (start, best))
        return better(x, judge(x), best), None

    losses = jax.eval_shape(judge, images)
    none = jnp.full(losses.shape, -jnp.inf, losses.dtype)
    best, _ = jax.lax.scan(run, (images, none), jnp.arange(restarts))
    return jax.lax.stop_gradient(best[0])


def noise_of(keys: Array, images: Array) -> Array:
    """Uniform in [-1/2, 1/2), one draw per example."""
    shape = images.shape[1:]
    return jax.vmap(lambda key: jax.random.uniform(key, shape, images.dtype, -0.5, 0.5))(keys)


def _decay(steps: int, step: int) -> float:
    """What a step is multiplied by."""
    if steps < 20:
        return 0.2 ** (step // 10)
    shares = (0.5, 0.8, 0.9) if steps >= 50 else (0.7,)
    return 0.1 ** sum(step >= math.ceil(share * steps) for share in shares)
