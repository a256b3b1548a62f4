"""The fast forms equal the stock convolution, and ask XLA for the fast layout only."""

import chex
import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tests.convolutions.comparing import (
    NCHW,
    NHWC,
    assert_same,
    convolution,
    equations,
    fast,
    random,
    replaced,
    slow_convolutions,
    trace,
)

# name: (images, kernel, options). Wide windows take the convolution's form, narrow ones the product's.
TABLE = {
    "1x1": ((2, 5, 6, 60), (1, 1, 60, 3), {}),
    "3x3": ((2, 5, 6, 8), (3, 3, 8, 3), {}),
    "3x3 narrow": ((2, 5, 6, 1), (3, 3, 1, 3), {}),
    "2x4 even": ((2, 5, 6, 8), (2, 4, 8, 3), {}),
    "5x5 valid": ((2, 7, 6, 8), (5, 5, 8, 3), {"padding": "VALID"}),
    "5x3 valid narrow": ((2, 7, 6, 2), (5, 3, 2, 3), {"padding": "VALID"}),
    "stride 2": ((2, 7, 6, 8), (3, 3, 8, 4), {"strides": (2, 2)}),
    "stride 2 narrow": ((2, 7, 6, 1), (3, 3, 1, 4), {"strides": (2, 2)}),
    "1x1 stride 2": ((2, 7, 6, 8), (1, 1, 8, 4), {"strides": (2, 2)}),
    "strides 3, 1": ((2, 8, 6, 8), (3, 3, 8, 4), {"strides": (3, 1)}),
    "stride over kernel": ((2, 9, 9, 60), (1, 1, 60, 4), {"strides": (4, 4), "padding": "VALID"}),
    "asymmetric": ((2, 5, 6, 8), (3, 3, 8, 4), {"padding": ((2, 0), (0, 3))}),
    "asymmetric narrow": ((2, 5, 6, 2), (3, 3, 2, 4), {"padding": ((2, 0), (0, 3))}),
    "negative": ((2, 8, 9, 8), (3, 3, 8, 4), {"padding": ((-1, 0), (1, -2))}),
    "negative narrow": ((2, 8, 9, 2), (3, 3, 2, 4), {"padding": ((-1, 0), (1, -2))}),
    "negative stride 2": (
        (2, 8, 9, 8),
        (3, 3, 8, 4),
        {"padding": ((-1, 0),) * 2, "strides": (2, 2)},
    ),
    "holes": ((2, 9, 9, 8), (3, 3, 8, 4), {"rhs_dilation": (2, 3)}),
    "holes narrow": ((2, 9, 9, 2), (3, 3, 2, 4), {"rhs_dilation": (2, 3)}),
    "spread": ((2, 5, 4, 8), (3, 3, 8, 4), {"lhs_dilation": (2, 3), "padding": ((2, 1), (1, 2))}),
    "spread narrow": (
        (2, 5, 4, 2),
        (3, 3, 2, 4),
        {"lhs_dilation": (2, 3), "padding": ((2, 1),) * 2},
    ),
    "all at once": (
        (2, 9, 8, 8),
        (3, 2, 8, 4),
        {
            "lhs_dilation": (2, 1),
            "rhs_dilation": (1, 2),
            "strides": (2, 3),
            "padding": ((3, -1), (0, 2)),
        },
    ),
    "groups": ((2, 6, 6, 16), (3, 3, 4, 8), {"feature_group_count": 4}),
    "large groups": ((2, 6, 6, 32), (3, 3, 16, 4), {"feature_group_count": 2}),
    "depthwise": ((2, 6, 6, 8), (3, 3, 1, 16), {"feature_group_count": 8, "strides": (2, 2)}),
    "batch groups": ((4, 6, 6, 8), (3, 3, 8, 6), {"batch_group_count": 2}),
    "batch groups narrow": ((4, 6, 6, 1), (3, 3, 1, 6), {"batch_group_count": 2}),
    "NCHW": ((2, 8, 5, 6), (4, 8, 3, 3), {"axes": NCHW}),
    "NCHW narrow": ((2, 3, 5, 6), (4, 3, 3, 3), {"axes": NCHW, "padding": ((1, 0), (0, 2))}),
    "NCHW stride 2": ((2, 8, 5, 6), (4, 8, 3, 3), {"axes": NCHW, "strides": (2, 2)}),
    "NCHW groups": ((2, 8, 5, 6), (4, 4, 3, 3), {"axes": NCHW, "feature_group_count": 2}),
    "mixed axes": (
        (5, 8, 2, 6),
        (8, 3, 4, 2),
        {"axes": ("HCNW", "IHOW", "WNCH"), "strides": (1, 2)},
    ),
    "1-D": ((2, 9, 12), (5, 12, 3), {"axes": ("NWC", "WIO", "NWC"), "strides": (1,)}),
    "1-D narrow": ((2, 3, 9), (4, 3, 3), {"axes": ("NCW", "OIW", "NCW"), "strides": (1,)}),
    "3-D": (
        (2, 4, 5, 6, 3),
        (3, 2, 3, 3, 4),
        {"axes": ("NDHWC", "DHWIO", "NDHWC"), "strides": (1, 2, 1)},
    ),
    "one image, one pixel": ((1, 1, 1, 8), (3, 3, 8, 4), {}),
}


@pytest.mark.parametrize("case", TABLE)
def test_equals_stock(case):
    images, kernel, options = TABLE[case]
    fn = convolution(**options)
    assert replaced(fn, random(0, images), random(1, kernel))
    assert_same(fn, random(0, images), random(1, kernel))


@pytest.mark.parametrize("channels", [2, 12])
@pytest.mark.parametrize(
    ("dtype", "preferred", "tolerance"),
    [("bfloat16", None, 2e-2), ("bfloat16", "float32", 2e-2), ("float16", None, 5e-3)],
)
def test_low_precision(channels, dtype, preferred, tolerance):
    fn = convolution(preferred_element_type=preferred and jnp.dtype(preferred))
    images, kernel = random(0, (2, 5, 6, channels), dtype), random(1, (3, 3, channels, 4), dtype)
    assert_same(fn, images, kernel, tolerance=tolerance)


@pytest.mark.parametrize("channels", [2, 12])
def test_float64(float64, channels):
    images, kernel = (
        random(0, (2, 5, 6, channels), "float64"),
        random(1, (3, 3, channels, 4), "float64"),
    )
    assert_same(convolution(precision=lax.Precision.HIGHEST), images, kernel, tolerance=1e-13)


@st.composite
def convolutions(draw):
    """A random legal convolution in one or two dimensions: images, kernel, options."""
    rank = draw(st.integers(1, 2))
    per_axis = lambda s: tuple(draw(s) for _ in range(rank))  # noqa: E731
    size, space = per_axis(st.integers(1, 3)), per_axis(st.integers(4, 7))
    strides, spread, holes = (per_axis(st.integers(1, 3)) for _ in range(3))
    padding = tuple((draw(st.integers(-1, 3)), draw(st.integers(-1, 3))) for _ in range(rank))
    groups = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)]))
    c, o, n = draw(st.sampled_from([1, 2, 5, 16])) * groups[0], draw(st.integers(1, 3)) * 2, 2
    letters = ["NC" + "HW"[:rank], "OI" + "HW"[:rank], "NC" + "HW"[:rank]]
    axes = tuple("".join(draw(st.permutations(letter))) for letter in letters)
    sizes = dict(zip("NCHW", (n, c, *space), strict=False))
    kernel_sizes = dict(zip("OIHW", (o, c // groups[0], *size), strict=False))
    options = {
        "axes": axes,
        "strides": strides,
        "padding": padding,
        "lhs_dilation": spread,
        "rhs_dilation": holes,
        "feature_group_count": groups[0],
        "batch_group_count": groups[1],
    }
    return [sizes[a] for a in axes[0]], [kernel_sizes[a] for a in axes[1]], options


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(convolutions())
def test_equals_stock_at_random(case):
    images, kernel, options = case
    # Padding that leaves nothing gives an empty result: that must come through as well.
    assert_same(convolution(**options), random(0, images), random(1, kernel))


EMPTY = {
    "no image": ((0, 5, 5, 3), (3, 3, 3, 4), {}),
    "no channel": ((2, 5, 5, 0), (3, 3, 0, 4), {}),
    "no output": ((2, 5, 5, 3), (3, 3, 3, 0), {}),
    "nothing left": ((2, 5, 5, 3), (3, 3, 3, 4), {"padding": "VALID", "rhs_dilation": (3, 3)}),
}


@pytest.mark.parametrize("case", EMPTY)
def test_empty_arrays_are_left_alone(case):
    images, kernel, options = EMPTY[case]
    fn = convolution(**options)
    assert not replaced(fn, random(0, images), random(1, kernel))
    assert_same(fn, random(0, images), random(1, kernel))


def test_integers_are_left_alone():
    images, kernel = jnp.ones((1, 4, 4, 2), jnp.int32), jnp.ones((3, 3, 2, 2), jnp.int32)
    assert not replaced(convolution(), images, kernel)
    chex.assert_trees_all_equal(fast(convolution())(images, kernel), convolution()(images, kernel))


# Speed without a clock: which layouts does the derivative ask XLA for?


@pytest.mark.parametrize("axes", [NHWC, NCHW])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("argument", [0, 1])
def test_gradients_use_the_fast_layout_only(axes, strides, argument):
    fn = convolution(axes=axes, strides=strides)
    images, kernel = (
        random(0, (2, 8, 8, 8)),
        random(1, (8, 8, 3, 3) if axes == NCHW else (3, 3, 8, 8)),
    )
    loss = lambda fn: lambda *args: fn(*args).sum()  # noqa: E731
    assert slow_convolutions(jax.grad(loss(fn), argument), images, kernel)
    assert not slow_convolutions(jax.grad(loss(fast(fn)), argument), images, kernel)


def test_attack_does_not_pay_for_the_kernel():
    fn, images, kernel = fast(convolution()), random(0, (2, 8, 8, 8)), random(1, (3, 3, 8, 8))
    jaxpr = trace(jax.grad(lambda images: fn(images, kernel).sum()), images)
    names = [e.primitive.name for e in equations(jaxpr)]
    assert names.count("conv_general_dilated") == 2
