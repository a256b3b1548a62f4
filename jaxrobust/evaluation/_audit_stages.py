"""The attacks of an audit: stronger ones of the same kind, and ones that bypass gradients."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxrobust import mixing, threats
from jaxrobust.attacks import APGD, PMA, Square
from jaxrobust.keys import key_of
from jaxrobust.twins import straight_through
from jaxrobust.typing import LogitsFn, Loss, Norm

DRAWS = 8  # noisy images that a smoothed copy averages over
AROUND_TARGETS = 3  # classes that attacks around the gradients aim at, the most likely first
Route = Literal["more", "around"]


class Stage(NamedTuple):
    """One attack of an audit.

    Attributes:
      name: its name in reports.
      route: "more" if it follows the network's own gradients, "around" if it bypasses them.
      attack: the attack with its settings bound.
      network: the network that it attacks, with the true network's verdicts.
      targets: number of target classes, one run for each; 0 for an untargeted attack.
    """

    name: str
    route: Route
    attack: Any
    network: Callable[..., Any]
    targets: int


class Follow:
    """The true network, attacked with the gradients of a guide.

    Args:
      logits_fn: the network.
      guide: images -> logits.
    """

    def __init__(self, logits_fn: LogitsFn, guide: LogitsFn) -> None:
        self._guided = mixing.guided(logits_fn, guide=guide)

    def __call__(self, images: Array) -> Array:
        """The network's logits."""
        return self._guided(images)

    def judge(self, loss: Loss, images: Array, labels: Array) -> tuple[Array, Array]:
        """As `mixing.guided` has it."""
        return self._guided.judge(loss, images, labels)


def stages(
    logits_fn: LogitsFn,
    *,
    norm: Norm,
    eps: Any,
    shape: Sequence[int],
    classes: int,
    stopped: bool,
    others: Sequence[LogitsFn],
    seed: int,
    steps: int,
    queries: int,
) -> list[Stage]:
    """The attacks of one round, in order.

    Args:
      logits_fn: the network.
      norm: the norm of the ball.
      eps: the radius of the ball.
      shape: `[h, w, c]` of an image.
      classes: number of logits.
      stopped: whether an operation in the network stops gradients, so that its twin differs from
        it.
      others: networks to transfer from.
      seed: the seed of the smoothed copy's noise.
      steps: number of steps of the gradient attacks.
      queries: number of queries of random search.
    """
    threat = getattr(threats, norm)(eps)
    towards = APGD(threat=threat, loss="margin_targeted", steps=steps)
    search = Square(threat=threat, queries=queries)
    wide, few = min(9, classes - 1), min(AROUND_TARGETS, classes - 1)
    twin: LogitsFn = straight_through(logits_fn) if stopped else logits_fn
    sigma = deviation(norm, float(eps), shape)

    def smooth(fn: LogitsFn) -> Follow:
        return Follow(logits_fn, smoothed(fn, key_of(seed), shape, sigma))

    found = [Stage("multi-targeted", "more", towards, logits_fn, wide)]
    if norm == "linf":
        found.append(Stage("PMA", "more", PMA(threat=threat, steps=steps), logits_fn, 0))
    if stopped:
        found.append(Stage("straight-through twin", "around", towards, twin, few))
        found.append(Stage("smoothed twin", "around", towards, smooth(twin), few))
    found.append(Stage("smoothed copy", "around", towards, smooth(logits_fn), few))
    for number, other in enumerate(others, start=1):
        name = f"transfer from network {number}"
        found.append(Stage(name, "around", towards, Follow(logits_fn, other), few))
    return [*found, Stage("random search", "around", search, logits_fn, 0)]


def deviation(norm: Norm, eps: float, shape: Sequence[int]) -> float:
    """The standard deviation, per value of an image, of noise that is well inside the ball."""
    size = float(jnp.prod(jnp.asarray(shape)))
    return eps / 2 / {"linf": 1.0, "l2": size**0.5, "l1": size}[norm]


def smoothed(logits_fn: LogitsFn, key: Array, shape: Sequence[int], sigma: float) -> LogitsFn:
    """The mean logits under Gaussian noise, with the same draws for all images and all calls."""
    noise = sigma * jax.random.normal(key, (DRAWS, 1, *shape))

    def mean(images: Array) -> Array:
        def add(total: Array, drawn: Array) -> tuple[Array, None]:
            return total + logits_fn(images + drawn.astype(images.dtype)), None

        first = jnp.zeros_like(jax.eval_shape(logits_fn, images))
        return jax.lax.scan(add, first, noise)[0] / DRAWS

    return mean
