"""One convolution: the value of JAX's own, and derivatives that XLA:CPU runs fast inside loops.

A convolution is linear in the images and linear in the kernel. Its forward-mode rule is therefore
the same convolution again, and reverse mode transposes that rule. JAX's transposition renames the
axes: for the images it swaps the kernel's channels I and O, for the kernel it swaps batch N and
channels C. So the rule is written here with operands that are already swapped, and with names that
say so: the same numbers, in a layout that JAX's own transposition turns into the one fast layout.
Strides, padding, dilation and groups stay in the hands of JAX's rules; forward mode, second
derivatives, `vmap` and collectives keep working, which a hand-written `custom_vjp` would give up.
"""

import functools
import itertools
import math
import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core.primitives import conv_general_dilated_p

from jaxrobust.convolutions import _winograd

Params = dict[str, Any]
Bilinear = Callable[[jax.Array, jax.Array], jax.Array]

# Axes of images, kernel and result; * stands for the spatial ones. The first is XLA:CPU's fast
# layout. The others are what JAX's transposition, with respect to one operand, turns into it.
_FAST = ("N*C", "*IO", "N*C")
_FAST_WHEN_TRANSPOSED_TO_IMAGES = ("N*C", "*OI", "N*C")
_FAST_WHEN_TRANSPOSED_TO_KERNEL = ("C*N", "I*O", "*NC")

# Up to this many numbers under the window (3x3 with 5 channels), at stride 1, a matrix product
# gives the input gradient faster than a convolution with so few output channels does.
_NARROW_WINDOW = 50

# The fast layout is no friend of groups. With fewer channels per group than this (depthwise
# convolutions above all: 6.5 ms against 0.3 ms) value and input gradient are better left alone.
_SMALL_GROUP = 16


def faster_form(params: Params, images: Any, kernel: Any, result: Any) -> Bilinear | None:
    """Finds the better form of one `conv_general_dilated` equation.

    Args:
      params: the equation's parameters.
      images: type (`jax.typeof`) of its left operand.
      kernel: type of its right operand.
      result: type of what it yields.

    Returns:
      A function (images, kernel) -> result for the equation, or None where no better form is known.
    """
    if not jnp.issubdtype(images.dtype, jnp.floating) or len(images.shape) < 3:
        return None
    if 0 in (*images.shape, *kernel.shape, *result.shape):
        return None
    # Explicit sharding is checked against the operands in the order given.
    shardings = [x.sharding.spec for x in (images, kernel, result)]
    if params["out_sharding"] is not None or any(axis for spec in shardings for axis in spec):
        return None
    return _bilinear(*_choose(params, images, kernel, result))


def _choose(params: Params, images: Any, kernel: Any, result: Any) -> tuple[Bilinear, ...]:
    """The only place where measurements decide: forms of value, input tangent, kernel tangent.

    Measured on jax 0.10.2 and 0.12.0.1, with one outcome; `bench.convolution_table` repeats it.
    """
    axes = params["dimension_numbers"]
    out_channels, in_channels = (kernel.shape[i] for i in axes.rhs_spec[:2])
    kernel_tangent = _convolved_as(params, _FAST_WHEN_TRANSPOSED_TO_KERNEL)
    if params["feature_group_count"] > 1 and in_channels < _SMALL_GROUP:
        stock = functools.partial(conv_general_dilated_p.bind, **params)
        return stock, stock, kernel_tangent
    if at_once := _winograd.images_at_once(params, images, kernel, result):
        return *_winograd_forms(params, at_once, result), kernel_tangent
    groups = params["feature_group_count"] * params["batch_group_count"]
    window = math.prod(kernel.shape) // out_channels
    if groups == 1 and window <= _NARROW_WINDOW and math.prod(params["window_strides"]) == 1:
        input_tangent = _in_layout(axes, _FAST, functools.partial(_windows_times_kernel, params))
    else:
        input_tangent = _convolved_as(params, _FAST_WHEN_TRANSPOSED_TO_IMAGES)
    return _convolved_as(params, _FAST), input_tangent, kernel_tangent


def _bilinear(value: Bilinear, input_tangent: Bilinear, kernel_tangent: Bilinear) -> Bilinear:
    """Joins the three forms into one differentiable function."""

    @jax.custom_jvp
    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return value(images, kernel)

    # Symbolic zeros, so that an attack, which moves the images alone, does not pay for the kernel.
    @functools.partial(convolve.defjvp, symbolic_zeros=True)
    def rule(primals: tuple, tangents: tuple) -> tuple:
        (images, kernel), (images_dot, kernel_dot) = primals, tangents
        terms = []
        if not isinstance(images_dot, SymbolicZero):
            terms.append(input_tangent(images_dot, kernel))
        if not isinstance(kernel_dot, SymbolicZero):
            terms.append(kernel_tangent(images, kernel_dot))
        return convolve(images, kernel), functools.reduce(lax.add, terms)

    return convolve


def _convolved_as(params: Params, axes: tuple[str, str, str]) -> Bilinear:
    """The convolution of `params`, carried out on operands rearranged to the named axes."""
    given = params["dimension_numbers"]
    layout = _layout(axes, len(given.lhs_spec))
    convolve = functools.partial(
        conv_general_dilated_p.bind, **{**params, "dimension_numbers": layout}
    )
    return _in_layout(given, axes, convolve)


def _in_layout(
    given: lax.ConvDimensionNumbers, axes: tuple[str, str, str], form: Bilinear
) -> Bilinear:
    """A form that wants the named axes, as a function of operands whose axes are as given."""
    layout = _layout(axes, len(given.lhs_spec))

    def rearranged(images: jax.Array, kernel: jax.Array) -> jax.Array:
        out = form(
            _rearrange(images, given.lhs_spec, layout.lhs_spec),
            _rearrange(kernel, given.rhs_spec, layout.rhs_spec),
        )
        return _rearrange(out, layout.out_spec, given.out_spec)

    return rearranged


def _winograd_forms(params: Params, at_once: int, result: Any) -> tuple[Bilinear, Bilinear]:
    """Value and input tangent."""
    axes, padding = params["dimension_numbers"], params["padding"]
    n, c, *space = axes.out_spec
    result = result.update(shape=tuple(result.shape[i] for i in (n, *space, c)))
    value = functools.partial(_winograd.convolve, padding=padding, at_once=at_once)
    input_tangent = functools.partial(
        _winograd.transposed, padding=padding, at_once=at_once, result=result
    )
    return _in_layout(axes, _FAST, value), _in_layout(axes, _FAST, input_tangent)


def _windows_times_kernel(params: Params, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same convolution as one matrix product over gathered windows (im2col); no groups."""
    rank = images.ndim
    space, strides, holes = kernel.shape[:-2], params["window_strides"], params["rhs_dilation"]
    margins = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    images = lax.pad(images, lax.full((), 0, images.dtype), [(0, 0, 0), *margins, (0, 0, 0)])
    # How far the window can travel along each axis, counted in pixels from its first position.
    travel = [
        (size - (k - 1) * hole - 1) // stride * stride
        for size, k, hole, stride in zip(images.shape[1:-1], space, holes, strides, strict=True)
    ]
    windows = []
    for position in itertools.product(*map(range, space)):
        start = [p * hole for p, hole in zip(position, holes, strict=True)]
        stop = [s + t + 1 for s, t in zip(start, travel, strict=True)]
        n, c = images.shape[0], images.shape[-1]
        windows.append(lax.slice(images, (0, *start, 0), (n, *stop, c), (1, *strides, 1)))
    return lax.dot_general(
        lax.concatenate(windows, rank - 1),
        lax.reshape(kernel, (math.prod(kernel.shape[:-1]), kernel.shape[-1])),
        (((rank - 1,), (0,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


@functools.cache
def _layout(axes: tuple[str, str, str], rank: int) -> lax.ConvDimensionNumbers:
    names = tuple(name.replace("*", string.digits[: rank - 2]) for name in axes)
    return lax.conv_dimension_numbers((1,) * rank, (1,) * rank, names)


def _rearrange(operand: jax.Array, given: Sequence[int], wanted: Sequence[int]) -> jax.Array:
    """Moves the axis found at `given[i]` to `wanted[i]`, for every i."""
    order = sorted(range(operand.ndim), key=wanted.__getitem__)
    return lax.transpose(operand, tuple(int(given[i]) for i in order))
