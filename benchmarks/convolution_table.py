"""What `fast_on_cpu` is worth: passes, attack and training steps in a loop, with and without it."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrobust.convolutions import compiler_options, fast_on_cpu

Params = list[Any]
_ENOUGH_SECONDS = 10.0
_ROUNDING = 1e-3  # float32, and each step builds on the one before; a wrong form is off by 0.1 to 1

GRADIENTS = ("none", "images", "params")
Apply = Callable[[Params, jax.Array], jax.Array]


class ConvolutionCase(NamedTuple):
    """A network to be measured; `layers` holds (kernel size, output channels, stride)."""

    name: str
    images: tuple[int, int, int, int]
    layers: tuple[tuple[int, int, int], ...]
    residual: bool = False


class ConvolutionRow(NamedTuple):
    """One line of the table. Milliseconds are wall time per step; differences are relative."""

    name: str
    images: tuple[int, int, int, int]
    gradient: str  # "none": a forward pass; "images": a step of an attack; "params": of training
    stock_ms: float
    fast_ms: float
    logits_difference: float  # of the logits, outside the loop
    path_difference: float  # of the way that images or params have gone after all steps
    stock_compile_s: float
    fast_compile_s: float

    @property
    def speedup(self) -> float:
        return self.stock_ms / self.fast_ms


def _three(channels: int) -> tuple[tuple[int, int, int], ...]:
    return (3, channels, 1), (3, channels, 2), (3, channels, 1)


CASES = (
    ConvolutionCase("digits", (288, 8, 8, 1), ((3, 16, 1), (3, 32, 2))),
    ConvolutionCase("mnist", (64, 28, 28, 1), ((3, 16, 1), (3, 16, 1), (3, 32, 2), (3, 32, 1))),
    ConvolutionCase("three 3x3", (128, 28, 28, 16), _three(16)),
    ConvolutionCase("three 3x3", (32, 32, 32, 16), _three(16)),
    ConvolutionCase("three 3x3", (32, 32, 32, 64), _three(64)),
    ConvolutionCase("three 3x3", (64, 16, 16, 32), _three(32)),
    ConvolutionCase("three 3x3", (64, 8, 8, 64), _three(64)),
    ConvolutionCase("residual block", (32, 32, 32, 16), ((3, 16, 1), (3, 16, 1)), residual=True),
    ConvolutionCase("residual block", (32, 32, 32, 64), ((3, 64, 1), (3, 64, 1)), residual=True),
    ConvolutionCase("residual block", (32, 8, 8, 256), ((3, 256, 1), (3, 256, 1)), residual=True),
)


def convolution_table(
    cases: Sequence[ConvolutionCase] = CASES,
    *,
    gradients: Sequence[str] = GRADIENTS,
    steps: int = 4,
    repeats: int = 3,
) -> list[ConvolutionRow]:
    """Times loops of passes and gradient steps, with stock convolutions and with `fast_on_cpu`.

    Both programs of a row are compiled first, the fast one as the library compiles (with
    `compiler_options`), then run in turn; the minimum counts. The default table takes minutes,
    nearly all of them in stock kernel gradients of the widest networks.

    Args:
      cases: the networks.
      gradients: "none" for a forward pass, "images" for the step of an attack, "params" for that
        of training.
      steps: steps inside the compiled loop.
      repeats: runs of each loop; fewer for a row that has taken ten seconds.

    Returns:
      One row per network and gradient.

    Raises:
      ValueError: for an unknown gradient.
      AssertionError: if the two programs disagree by more than rounding, so that no speed is ever
        reported for a wrong result.

    Example:
      >>> tiny = ConvolutionCase("tiny", (2, 6, 6, 1), ((3, 4, 1),))
      >>> [row.name for row in convolution_table([tiny], steps=2, repeats=1)]
      ['tiny', 'tiny', 'tiny']
    """
    for gradient in gradients:
        if gradient not in GRADIENTS:
            raise ValueError(f"gradients: expected some of {GRADIENTS}, got {gradient!r}")
    return [_measure(case, gradient, steps, repeats) for case in cases for gradient in gradients]


def _measure(case: ConvolutionCase, gradient: str, steps: int, repeats: int) -> ConvolutionRow:
    params = _init(case)
    images = jax.random.uniform(jax.random.key(1), case.images)
    apply = _network(case)
    compiled, seconds, logits = [], [], []
    for variant, options in ((apply, {}), (fast_on_cpu(apply, enabled=True), compiler_options())):
        start = time.perf_counter()
        lowered = jax.jit(_loop(variant, gradient, steps)).lower(params, images)
        compiled.append(lowered.compile(options))
        seconds.append(time.perf_counter() - start)
        logits.append(jax.jit(variant)(params, images))
    outs: list[Any] = [None, None]
    begin, best = time.perf_counter(), [np.inf, np.inf]
    for _ in range(repeats):
        for i, run in enumerate(compiled):
            start = time.perf_counter()
            outs[i] = jax.block_until_ready(run(params, images))
            best[i] = min(best[i], (time.perf_counter() - start) / steps * 1e3)
        if time.perf_counter() - begin > _ENOUGH_SECONDS:
            break
    row = ConvolutionRow(
        case.name,
        case.images,
        gradient,
        stock_ms=best[0],
        fast_ms=best[1],
        logits_difference=_difference(*logits),
        path_difference=_difference(*outs),
        stock_compile_s=seconds[0],
        fast_compile_s=seconds[1],
    )
    if max(row.logits_difference, row.path_difference) > _ROUNDING:
        raise AssertionError(f"stock and fast convolutions disagree: {row}")
    return row


def _loop(apply: Apply, gradient: str, steps: int) -> Callable[[Params, jax.Array], Any]:
    """The way that `steps` steps lead; not the end, in which the start would drown it."""

    def loss(params: Params, images: jax.Array) -> jax.Array:
        return jnp.square(apply(params, images)).sum()

    # Steps of one length, but smooth: rounding cannot flip a sign and grow.
    def step(point: Any, grads: Any) -> Any:
        return jax.tree.map(lambda p, g: p + 0.01 * g / jnp.abs(g).max(), point, grads)

    def way(start: Any, grad: Callable[[Any], Any]) -> Any:
        end = lax.fori_loop(0, steps, lambda _, point: step(point, grad(point)), start)
        return jax.tree.map(jnp.subtract, end, start)

    def forward(params: Params, images: jax.Array) -> jax.Array:
        mean = lambda x: jnp.mean(apply(params, x), -1)[:, None, None, None]  # noqa: E731
        return way(images, lambda x: jnp.broadcast_to(mean(x), x.shape))

    def attack(params: Params, images: jax.Array) -> jax.Array:
        return way(images, lambda x: jax.grad(loss, 1)(params, x))

    def train(params: Params, images: jax.Array) -> Params:
        return way(params, lambda p: jax.grad(loss)(p, images))

    return {"none": forward, "images": attack, "params": train}[gradient]


def _init(case: ConvolutionCase) -> Params:
    """He-scaled kernels, and a dense layer to ten classes."""
    keys = iter(jax.random.split(jax.random.key(0), len(case.layers) + 1))
    channels, params = case.images[-1], []
    for size, out, _ in case.layers:
        scale = (2 / (size * size * channels)) ** 0.5
        params.append(scale * jax.random.normal(next(keys), (size, size, channels, out)))
        channels = out
    return [*params, 0.1 * jax.random.normal(next(keys), (channels, 10))]


def _network(case: ConvolutionCase) -> Apply:
    def apply(params: Params, images: jax.Array) -> jax.Array:
        maps = images
        for kernel, (_, _, stride) in zip(params[:-1], case.layers, strict=True):
            # Pre-activation in a residual block; tanh is smooth, as the comparison needs.
            inside = jnp.tanh(maps) if case.residual else maps
            axes = ("NHWC", "HWIO", "NHWC")
            out = lax.conv_general_dilated(
                inside, kernel, (stride, stride), "SAME", dimension_numbers=axes
            )
            maps = out if case.residual else jnp.tanh(out)
        if case.residual:
            maps = maps + images
        return maps.mean((1, 2)) @ params[-1]

    return apply


def _difference(stock: Any, fast: Any) -> float:
    """Largest difference relative to the largest entry, over all arrays of two trees."""
    pairs = zip(jax.tree.leaves(stock), jax.tree.leaves(fast), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(a).max()) for a, b in pairs)
