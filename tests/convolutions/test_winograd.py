"""Winograd's 3x3 convolutions equal the stock one, under every transformation, where they pay."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrobust.convolutions import _winograd
from tests.convolutions.comparing import (
    NCHW,
    assert_same,
    convolution,
    equations,
    fast,
    jit,
    random,
    trace,
    value_and_gradients,
)
from tests.convolutions.test_fast_on_cpu import (
    TRANSFORMATIONS,
    check_shard_map,
    loss_of,
    net_args,
    network,
)
from tests.convolutions.test_forms import TABLE

# batch, height, width, padding, images at once
SHAPES = {
    "same": (2, 6, 8, ((1, 1), (1, 1)), 2),
    "odd": (2, 5, 7, ((1, 1), (1, 1)), 2),
    "valid": (2, 5, 6, ((0, 0), (0, 0)), 2),
    "asymmetric": (2, 5, 6, ((0, 2), (1, 0)), 2),
    "full": (1, 4, 3, ((2, 2), (2, 2)), 1),
    "one pixel": (3, 1, 1, ((1, 1), (1, 1)), 3),
    "in parts": (6, 5, 4, ((1, 1), (1, 1)), 2),
    "one by one": (3, 4, 4, ((1, 1), (0, 1)), 1),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_integers_come_out_exactly(shape, turned):
    batch, height, width, padding, at_once = SHAPES[shape]
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(-8, 9, (batch, height, width, 3)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-8, 9, (3, 3, 3, 5)), jnp.float32)
    stock = convolution(padding=padding)(images, kernel)
    given = lax.rev(kernel, (0, 1)).swapaxes(2, 3) if turned else kernel
    ours = _winograd.convolve(images, given, padding, at_once, turned=turned)
    np.testing.assert_array_equal(ours, stock)


def test_rounding_is_of_the_stock_size(float64):
    """On positive maps, as after a relu, where the differences inside a tile cancel most."""
    images, kernel = jnp.abs(random(0, (4, 16, 16, 64), "float64")), random(1, (3, 3, 64, 64))
    kernel = kernel.astype(jnp.float64)
    exact = convolution()(images, kernel)
    low = images.astype(jnp.float32), kernel.astype(jnp.float32)
    ours = _winograd.convolve(*low, ((1, 1), (1, 1)), 4)
    error = {
        name: float(jnp.sqrt(jnp.mean((found.astype(jnp.float64) - exact) ** 2)))
        for name, found in {"ours": ours, "stock": convolution()(*low)}.items()
    }
    assert error["ours"] < 5 * error["stock"], error
    assert error["ours"] < 1e-6 * float(jnp.abs(exact).max())


def test_numbers_that_are_not_finite_stay_in_their_image():
    images = random(0, (3, 6, 6, 4)).at[1, 2, 2, 0].set(jnp.nan)
    out = _winograd.convolve(images, random(1, (3, 3, 4, 4)), ((1, 1), (1, 1)), 3)
    assert np.isfinite(out[0]).all()
    assert np.isfinite(out[2]).all()
    assert not np.isfinite(out[1]).all()


# Where it is chosen.


def at_once(images, kernel, dtype="float32", **options):
    shapes = [jax.ShapeDtypeStruct(shape, dtype) for shape in (images, kernel)]
    eqn = jax.make_jaxpr(convolution(**options))(*shapes).jaxpr.eqns[0]
    types = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    return _winograd.images_at_once(eqn.params, *types)


LARGE = (32, 16, 16, 128), (3, 3, 128, 128)


def test_as_many_images_as_a_cache_holds():
    assert at_once(*LARGE) == 16
    assert at_once((32, 128, 16, 16), (128, 128, 3, 3), axes=NCHW) == 16
    assert at_once((32, 32, 32, 64), (3, 3, 64, 64)) == 8
    assert at_once((32, 4, 4, 512), (3, 3, 512, 512)) == 32
    assert at_once((128, 32, 32, 160), (3, 3, 160, 160)) == 4
    assert at_once(*LARGE, precision=lax.Precision.DEFAULT) == 16


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"},
        {"strides": (2, 2)},
        {"lhs_dilation": (2, 1), "padding": ((1, 1), (1, 1))},
        {"rhs_dilation": (1, 2)},
        {"padding": ((3, 1), (1, 1))},
        {"padding": ((1, 1), (-1, 1))},
        {"precision": lax.Precision.HIGHEST},
        {"images": (32, 16, 16, 256), "feature_group_count": 2},
        {"batch_group_count": 2},
        {"kernel": (5, 5, 128, 128)},
        {"kernel": (3, 1, 128, 128)},
        {"images": (31, 32, 32, 64), "kernel": (3, 3, 64, 64)},
        {"images": (32, 32, 32, 3), "kernel": (3, 3, 3, 64)},
        {"images": (32, 32, 32, 16), "kernel": (3, 3, 16, 16)},
        {"images": (1, 8, 8, 128)},
    ],
    ids=str,
)
def test_left_to_the_stock_convolution(options):
    images, kernel = options.pop("images", LARGE[0]), options.pop("kernel", LARGE[1])
    assert at_once(images, kernel, **options) is None


def test_one_dimension_is_left_to_the_stock_convolution():
    assert at_once((512, 64, 256), (3, 256, 256), axes=("NWC", "WIO", "NWC"), strides=(1,)) is None


# In place of the stock one.


@pytest.fixture
def always(monkeypatch):
    """Chosen for tiny convolutions too, two images at a time."""
    monkeypatch.setattr(_winograd, "_SURE_PRODUCT", 1)
    monkeypatch.setattr(_winograd, "_LARGEST_PLANE", 2 * 4 * 4 * 8)


def products(fn, *args):
    """How many times sixteen products are taken, inside loops too."""
    found = [e for e in equations(trace(fn, *args)) if e.primitive.name == "dot_general"]
    return sum(e.outvars[0].aval.shape[:1] == (16,) and e.outvars[0].aval.ndim == 3 for e in found)


# Those with a window of 3x3 at stride 1, and one of each kind that must be left alone.
CASES = ["3x3", "3x3 narrow", "asymmetric", "negative", "stride 2", "groups", "NCHW", "NCHW narrow"]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("case", CASES)
def test_equals_stock(case):
    images, kernel, options = TABLE[case]
    assert_same(convolution(**options), random(0, images), random(1, kernel), exact_value=False)


@pytest.mark.usefixtures("always")
def test_value_and_image_gradient_are_products():
    fn, images, kernel = convolution(), random(0, (4, 8, 8, 8)), random(1, (3, 3, 8, 8))
    assert products(fast(fn), images, kernel) == 1
    assert products(jax.grad(lambda x: fast(fn)(x, kernel).sum()), images) == 2
    # The gradient of the kernel stays a convolution.
    both = lambda x, k: value_and_gradients(fast(fn), x, k)  # noqa: E731
    names = [e.primitive.name for e in equations(trace(both, images, kernel))]
    assert names.count("conv_general_dilated") == 1


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_transformations(name):
    transform, args = TRANSFORMATIONS[name], net_args()
    assert products(fast(network), *args) == 1  # the other layer has stride 2
    want = jit(transform(loss_of(network)))(*args)
    got = jit(transform(loss_of(fast(network))))(*args)
    chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(check_vma):
    check_shard_map(check_vma)


@pytest.mark.usefixtures("always")
def test_inside_checkpoint_scan_and_jit():
    kernel = random(1, (3, 3, 8, 8)) * 0.1
    conv = convolution()

    def loss(images, conv):
        block = jax.checkpoint(jax.jit(lambda x: jnp.tanh(conv(x, kernel))))
        return (lax.scan(lambda x, _: (block(x), None), images, None, 3)[0] ** 2).sum()

    images = random(0, (4, 8, 8, 8))
    want = jit(jax.value_and_grad(lambda x: loss(x, conv)))(images)
    got = jit(jax.value_and_grad(fast(lambda x: loss(x, conv))))(images)
    chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)
