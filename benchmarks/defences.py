"""Digits networks that hide their gradients, honest ones, and what attacked each of them before."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback

from benchmarks.fast_verdict import digits_case
from jaxrobust import losses, mixing

Network = Callable[[Any], Any]
Weights = list[Any]
Activation = Callable[[int, Any], Any]
BOTH = ("apgd-ce", "apgd-t")


class Defence(NamedTuple):
    """A network, and how it is attacked before the audit.

    Attributes:
      name: of the defence.
      network: images `[b, 8, 8, 1]` to logits `[b, 10]`.
      eps: radius of the l_inf ball, in image units.
      attacks: of AutoAttack, for a short evaluation; empty for a random network.
      points: the first so many digits.
      least: the number of points that must fall to the audit after the short evaluation; 0 for an
        honest network.
    """

    name: str
    network: Network
    eps: float
    attacks: tuple[str, ...]
    points: int
    least: int


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Base:
    """A base of a mixed classifier, which also hands its images to the mixing network."""

    network: Any

    def __call__(self, x: Any) -> Any:
        return self.network(x)

    def with_features(self, x: Any) -> tuple[Any, Any]:
        return self(x), {"image": x}


def digits_images() -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of the digits networks."""
    case = digits_case("digits_robust", "linf", 0.1)
    return case.images, case.labels


def defences() -> list[Defence]:
    """All of them; three small networks are trained first."""
    standard, robust = (
        Base(digits_case(name, "linf", 0.1).logits_fn)
        for name in ("digits_standard", "digits_robust")
    )
    return [
        Defence("adversarially trained", robust, 0.1, BOTH, 48, 0),
        Defence("not adversarially trained", standard, 0.05, BOTH, 48, 0),
        Defence(
            "cosine transform, rounded (as in JPEG)",
            lambda x: standard(jpeg(x)),
            0.15,
            (*BOTH, "square"),
            48,
            8,
        ),
        Defence("thermometer code", lambda x: standard(thermometer(x)), 0.1, BOTH, 48, 15),
        # A power of two: with 1e6 the rounding of fused products hides that the gradient is 0.
        Defence("logits times 2^20", lambda x: 2.0**20 * robust(x), 0.1, ("apgd-ce",), 48, 3),
        Defence("k-winners-take-all", winners_take_all(), 0.06, BOTH, 60, 3),
        Defence("MeanSparse, t = 0.2", mean_sparse(0.2), 0.06, BOTH, 360, 1),
        Defence("the same network without MeanSparse", mean_sparse(0.0), 0.06, BOTH, 360, 0),
        Defence("random resizing", random_resizing(robust), 0.08, (), 64, 1),
        Defence(
            "Adaptive Smoothing, detector without gradients",
            adaptive_smoothing(standard, robust),
            0.1,
            BOTH,
            60,
            4,
        ),
        Defence("MixedNUTS", mixed_nuts(standard, robust), 0.1, BOTH, 48, 6),
    ]


def jpeg(x: Any) -> Any:
    """Cosine transforms of 4x4 blocks, rounded to multiples of 1/4."""
    k = np.arange(4)
    waves = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 8)
    basis = jnp.asarray(waves * np.sqrt(np.where(k == 0, 1, 2) / 4)[:, None], jnp.float32)
    found = jnp.einsum("ij,bhjwk,lk->bhiwl", basis, x.reshape(len(x), 2, 4, 2, 4), basis)
    found = jnp.round(found * 4) / 4
    return jnp.einsum("ij,bhiwl,lk->bhjwk", basis, found, basis).reshape(x.shape)


def thermometer(x: Any) -> Any:
    """The share of ten levels that a pixel is above."""
    levels = jnp.linspace(0.05, 0.95, 10)[None, None, None, None]
    return (x[..., None] > levels).astype(x.dtype).mean(-1)


def adaptive_smoothing(standard: Base, robust: Base) -> Network:
    """Mixed by a detector of attacks that passes no gradient."""

    def detector(std: Any, rob: Any) -> Any:
        """Clean digits have black pixels; where there are fewer, the robust base decides."""
        black = (1 / (1 + 400 * std["image"])).mean((1, 2, 3))
        return 200 * (0.33 - black)

    return mixing.mixed(
        standard, robust, gamma=detector, detach=True, alpha_scale=0.9, alpha_bias=0.05
    )


def mixed_nuts(standard: Base, robust: Base) -> Network:
    return mixing.mixed_nuts(
        standard, robust, s=5.0, p=4.0, c=-1.1, alpha=0.85, surrogate_alpha=0.85
    )


def winners_take_all() -> Network:
    """Only the seven largest values of each hidden layer pass."""

    def winners(layer: int, v: Any) -> Any:
        v = (v - v.mean(-1, keepdims=True)) / (v.std(-1, keepdims=True) + 1e-5)
        return jnp.where(v >= jax.lax.top_k(v, 7)[0][:, -1:], v, 0.0)

    weights = trained(winners, 200)
    return lambda x: dense_net(weights, x, winners)


def mean_sparse(threshold: float) -> Network:
    """After normalisation, values near their mean, in standard deviations, become the mean."""
    weights, statistics = _normalised()

    def sparse(layer: int, v: Any) -> Any:
        mean, deviation = (value[None] for value in statistics[layer])
        if threshold:
            v = jnp.where(jnp.abs(v - mean) < threshold * deviation, mean, v)
        return jax.nn.relu((v - mean) / deviation)

    return lambda x: dense_net(weights, x, sparse)


@functools.cache
def _normalised() -> tuple[Weights, list[Any]]:
    """The weights of a network trained with normalisation, and the statistics of its layers."""
    statistics: list[Any] = []

    def by_batch(layer: int, v: Any) -> Any:
        mean, deviation = v.mean(0), v.std(0) + 1e-3
        statistics.append((mean, deviation))
        return jax.nn.relu((v - mean[None]) / deviation[None])

    weights = trained(by_batch, 100)
    statistics.clear()
    dense_net(weights, jnp.asarray(digits_images()[0]), by_batch)
    return weights, statistics


def random_resizing(base: Network) -> Network:
    """Images are resized and moved by other draws in every call."""
    draws = np.random.default_rng(0)

    def resized(image: Any, key: Any) -> Any:
        size = jax.random.uniform(key, (2,), minval=0.9, maxval=1.1)
        shift = jax.random.uniform(jax.random.fold_in(key, 1), (2,), minval=-0.5, maxval=0.5)
        return jax.image.scale_and_translate(image, (8, 8, 1), (0, 1), size, shift, "linear")

    def network(x: Any) -> Any:
        seed = io_callback(
            lambda: draws.integers(0, 2**31 - 1, dtype=np.int32),
            jax.ShapeDtypeStruct((), jnp.int32),
        )
        keys = jax.random.split(jax.random.fold_in(jax.random.key(7), seed), len(x))
        return base(jax.vmap(resized)(x, keys))

    return network


def dense_net(weights: Weights, x: Any, act: Activation) -> Any:
    """Hidden layers with something in place of normalisation and ReLU."""
    v = x.reshape(len(x), -1)
    for layer, matrix in enumerate(weights[:-1]):
        v = act(layer, v @ matrix)
    return v @ weights[-1]


def trained(act: Activation, steps: int) -> Weights:
    """The weights of three hidden layers after some steps on all digits."""
    x, y = (jnp.asarray(values) for values in digits_images())
    keys, sizes = jax.random.split(jax.random.key(0), 4), (64, 64, 64, 64, 10)
    weights = [
        jax.random.normal(key, (a, b)) * np.sqrt(2 / a)
        for key, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]
    optimizer = optax.adam(3e-3)

    def step(_: int, carry: Any) -> Any:
        slopes = jax.grad(lambda w: losses.cross_entropy(dense_net(w, x, act), y).mean())(carry[0])
        updates, state = optimizer.update(slopes, carry[1])
        return optax.apply_updates(carry[0], updates), state

    with jax.numpy_dtype_promotion("standard"):  # Optax
        carry = weights, optimizer.init(weights)
        return jax.jit(lambda carry: jax.lax.fori_loop(0, steps, step, carry))(carry)[0]
