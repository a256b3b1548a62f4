"""Certified bounds: seconds an image by method, and at which size of network they prove nothing."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import bounds, models, threats

# CPU seconds of auto_LiRPA (a050a3d, torch 2.13, float32, one thread) for one batch with CROWN on
# all neurons, alpha-CROWN of 20 iterations, and the batch. They were measured on a quiet two-core
# Xeon with AMX, not beside these rows.
REFERENCE = {
    "resnet2b": {"batch": 4, "ibp": 0.004, "crown-ibp": 0.009, "crown": 0.755, "alpha-crown": 3.1},
    "oval_base": {
        "batch": 10,
        "ibp": 0.003,
        "crown-ibp": 0.009,
        "crown": 0.223,
        "alpha-crown": 1.04,
    },
}
METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")


class BoundRow(NamedTuple):
    """Bounds of a batch by one method.

    Attributes:
      network: its name.
      values: inside the network that a nonlinear operation reads.
      method: of `bounds.margins`.
      batch: images.
      forward_seconds: of a forward pass of the batch.
      seconds: an image, the least of the repeats.
      first_seconds: of the first call for the batch, compilation included.
      reference_seconds: an image with auto_LiRPA, on another machine; NaN where it is not known.
    """

    network: str
    values: int
    method: str
    batch: int
    forward_seconds: float
    seconds: float
    first_seconds: float
    reference_seconds: float


class LimitRow(NamedTuple):
    """The radius up to which a method proves anything of a random network.

    Attributes:
      network: its name.
      depth: hidden layers.
      width: values of each.
      method: of `bounds.margins`.
      radius: the largest l_inf eps at which most of the images are certified, as labelled by the
        network itself; 0 if there is none in the grid.
      attacked: the smallest eps at which a sign step fools most of them.
    """

    network: str
    depth: int
    width: int
    method: str
    radius: float
    attacked: float


def bound_table(
    *, methods: Sequence[str] = METHODS[:3], networks: Sequence[str] = (), repeats: int = 3
) -> list[BoundRow]:
    """Times bounds of two published architectures with random weights.

    Seconds do not depend on the weights: every row of CROWN is pushed back, whatever its value.

    Args:
      methods: of `bounds.margins`.
      networks: among those of `REFERENCE`; default all.
      repeats: timed calls of each.

    Returns:
      A row per network and method.
    """
    return [_timed(name, method, repeats) for name in networks or REFERENCE for method in methods]


def _timed(name: str, method: str, repeats: int) -> BoundRow:
    network, values = _resnet2b() if name == "resnet2b" else _oval_base()
    batch = int(REFERENCE[name]["batch"])
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(size=(batch, 32, 32, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, batch))

    @jax.jit
    def of(images: Any, labels: Any) -> Any:
        threat = threats.linf(2 / 255)
        return bounds.margins(network, images, labels, threat=threat, method=method)  # type: ignore[arg-type]

    _, first = _call(of, images, labels)
    seconds = min(_call(of, images, labels)[1] for _ in range(repeats))
    forward = jax.jit(network)
    _call(forward, images)
    return BoundRow(
        network=name,
        values=values,
        method=method,
        batch=batch,
        forward_seconds=min(_call(forward, images)[1] for _ in range(repeats)),
        seconds=seconds / batch,
        first_seconds=first,
        reference_seconds=REFERENCE[name].get(method, float("nan")) / batch,
    )


def limit_table(
    *,
    depths: Sequence[int] = (1, 2, 4, 8),
    widths: Sequence[int] = (32, 128),
    methods: Sequence[str] = METHODS[:3],
    images: int = 8,
) -> list[LimitRow]:
    """The radii that methods certify of random ReLU perceptrons, by depth and width.

    Random networks have no structure that training gives, so these rows say how the looseness of
    bounds grows, and not what they prove of a trained network.

    Args:
      depths: numbers of hidden layers.
      widths: of each.
      methods: of `bounds.margins`.
      images: random ones of 8 x 8.

    Returns:
      A row per network and method.
    """
    cases = [(depth, width) for depth in depths for width in widths]
    return [row for case in cases for row in _limits(*case, methods, images)]


GRID = 10 ** np.linspace(-5, -0.5, 46)


def _limits(depth: int, width: int, methods: Sequence[str], count: int) -> list[LimitRow]:
    model = models.mlp(num_classes=10, hidden=(width,) * depth)
    images = jax.random.uniform(jax.random.key(1), (count, 8, 8, 1))
    variables = model.init(jax.random.key(0), images)

    def network(x: Any) -> Any:
        return model.apply(variables, x)

    labels = network(images).argmax(-1)

    def lead(x: Any) -> Any:
        logits = network(x)
        own = jax.nn.one_hot(labels, 10, dtype=bool)
        label = jnp.where(own, logits, 0).sum(-1)
        return label - jnp.where(own, -jnp.inf, logits).max(-1)

    direction = jnp.sign(jax.grad(lambda x: lead(x).sum())(images))
    stepped = jax.jit(lambda eps: jnp.mean(lead(jnp.clip(images - eps * direction, 0, 1)) > 0))
    broken = [float(eps) for eps in GRID if stepped(eps) <= 0.5]
    rows = []
    for method in methods:

        @jax.jit
        def proved(eps: Any, method: Any = method) -> Any:
            found = bounds.margins(network, images, labels, threat=threats.linf(eps), method=method)
            return jnp.mean(bounds.verified(found))

        good = [float(eps) for eps in GRID if proved(eps) > 0.5]
        attacked = min(broken, default=float("nan"))
        largest = max(good, default=0.0)
        rows.append(LimitRow(f"mlp {depth} x {width}", depth, width, method, largest, attacked))
    return rows


def _call(function: Any, *arguments: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    found = jax.block_until_ready(function(*arguments))
    return found, time.perf_counter() - started


class _Weights:
    """Random kernels, one after the other."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def conv(self, before: int, after: int, size: int, stride: int, padding: int) -> Any:
        kernel = self._normal((size, size, before, after))

        def apply(x: Any) -> Any:
            axes = ("NHWC", "HWIO", "NHWC")
            around = [(padding, padding)] * 2
            return jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), around, dimension_numbers=axes
            )

        return apply

    def dense(self, before: int, after: int) -> Any:
        kernel = self._normal((before, after))
        return lambda x: x.reshape(len(x), -1) @ kernel

    def _normal(self, shape: tuple[int, ...]) -> Any:
        scale = (2 / np.prod(shape[:-1])) ** 0.5
        return jnp.asarray(self.rng.normal(size=shape) * scale, jnp.float32)


def _oval_base() -> tuple[Any, int]:
    w = _Weights()
    layers = [w.conv(3, 8, 4, 2, 1), w.conv(8, 16, 4, 2, 1), w.dense(1024, 100), w.dense(100, 10)]

    def network(x: Any) -> Any:
        for layer in layers[:-1]:
            x = jax.nn.relu(layer(x))
        return layers[-1](x)

    return network, 16 * 16 * 8 + 8 * 8 * 16 + 100


def _resnet2b() -> tuple[Any, int]:
    w = _Weights()
    first = w.conv(3, 8, 3, 2, 1)
    down = w.conv(8, 16, 3, 2, 1), w.conv(16, 16, 3, 1, 1), w.conv(8, 16, 1, 2, 0)
    same = w.conv(16, 16, 3, 1, 1), w.conv(16, 16, 3, 1, 1)
    head = w.dense(1024, 100), w.dense(100, 10)

    def network(x: Any) -> Any:
        x = jax.nn.relu(first(x))
        x = jax.nn.relu(down[1](jax.nn.relu(down[0](x))) + down[2](x))
        x = jax.nn.relu(same[1](jax.nn.relu(same[0](x))) + x)
        return head[1](jax.nn.relu(head[0](x)))

    return network, 16 * 16 * 8 + 4 * 8 * 8 * 16 + 100
