"""The switch that a user sees."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.extend.core as jex

from jaxrobust.convolutions._compiler import wanted
from jaxrobust.convolutions._rewrite import rewrite

Function = TypeVar("Function", bound=Callable[..., Any])


def fast_on_cpu(fn: Function, *, enabled: bool | None = None) -> Function:
    """Makes the convolutions in a function, and their derivatives, fast on CPU, inside loops too.

    Every convolution inside `fn` is found, also within `jit`, `checkpoint`, `scan`, `while` and
    `cond`, and gets a derivative rule that XLA's CPU backend runs fast in a loop body too. Values
    and derivatives, forward and reverse and of any order, are those of the stock rules to
    rounding. Large 3x3 convolutions with stride 1 in float32 are computed by Winograd's
    algorithm, in 4/9 of the multiplications; the values of all others stay what they are to the
    bit, for channels-last networks and outside of loops. A `precision` other than the default,
    on a convolution or as JAX's default, keeps Winograd's algorithm out.

    Left as they are: functions with their author's derivative rule (`custom_jvp`, `custom_vjp`),
    convolutions of integers, of empty arrays or with a prescribed `out_sharding`, and values and
    input gradients of convolutions in many small groups. `fn` is traced once per call, as `jit`
    would do it, so it must not branch on the values of its arrays.

    Args:
      fn: a network with its parameters bound, a function of (params, images), ... Array leaves of
        its arguments are traced; others, Python numbers and flags, are handed through as they are.
      enabled: True or False decide; None asks, now, that the default backend is the CPU and that
        the environment variable JAXROBUST_FAST_CONVOLUTIONS is not "0".

    Returns:
      A function with the arguments and results of `fn`; `fn` itself where not enabled.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> kernel = jnp.ones((3, 3, 1, 2))
      >>> def logits_fn(images):
      ...     maps = jax.lax.conv_general_dilated(
      ...         images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
      ...     )
      ...     return maps.mean((1, 2))
      >>> fast, images = fast_on_cpu(logits_fn, enabled=True), jnp.ones((4, 8, 8, 1))
      >>> bool((fast(images) == logits_fn(images)).all())
      True
      >>> jax.grad(lambda images: fast(images).sum())(images).shape
      (4, 8, 8, 1)

    References:
      https://github.com/jax-ml/jax/issues/12868 (convolution gradients in loops on CPU).
      Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016 (Winograd).
    """
    if not (wanted() if enabled is None else enabled):
        return fn

    @functools.wraps(fn, updated=())
    def fast(*args: Any, **kwargs: Any) -> Any:
        arrays, rebuild = _split((args, kwargs))
        rebuild_output: list[Callable] = []

        def of_arrays(arrays: list[jax.Array]) -> list[jax.Array]:
            args, kwargs = rebuild(arrays)
            out, to_output = _split(fn(*args, **kwargs))
            rebuild_output.append(to_output)
            return out

        jaxpr = jax.make_jaxpr(of_arrays)(arrays)
        return rebuild_output[-1](jex.jaxpr_as_fun(rewrite(jaxpr))(*arrays))

    return fast  # type: ignore[return-value]


def _split(tree: Any) -> tuple[list[jax.Array], Callable[[list[jax.Array]], Any]]:
    """The array leaves of a tree, and a function that puts the tree together around others."""
    leaves, treedef = jax.tree.flatten(tree)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

    def rebuild(arrays: list[jax.Array]) -> Any:
        filled = list(leaves)
        for i, array in zip(places, arrays, strict=True):
            filled[i] = array
        return jax.tree.unflatten(treedef, filled)

    return [leaves[i] for i in places], rebuild
