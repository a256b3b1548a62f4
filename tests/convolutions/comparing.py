"""What the tests of convolutions share: one convolution, stock against fast, and what is traced."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxrobust.convolutions import _forms, fast_on_cpu

NHWC = ("NHWC", "HWIO", "NHWC")
NCHW = ("NCHW", "OIHW", "NCHW")
FAST = {rank: _forms._layout(_forms._FAST, rank) for rank in (3, 4, 5)}

fast = functools.partial(fast_on_cpu, enabled=True)

# Hundreds of small programs: most of the time of these tests would go into optimising them.
jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def random(seed, shape, dtype="float32"):
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values.astype(jnp.dtype(dtype)))


def convolution(*, axes=NHWC, strides=(1, 1), padding="SAME", **options):
    def fn(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, strides, padding, dimension_numbers=axes, **options
        )

    return fn


def value_and_gradients(fn, images, kernel):
    """Value, and both gradients for a random cotangent."""
    shape = jax.eval_shape(fn, images, kernel)
    out, pullback = jax.vjp(fn, images, kernel)
    return out, *pullback(random(7, shape.shape, shape.dtype))


def assert_same(fn, images, kernel, *, exact_value=True, tolerance=1e-5):
    """Values bit for bit, gradients to rounding, dtypes and shapes."""
    # One program for both, which halves the time to compile.
    want, got = jax.jit(lambda *args: tuple(value_and_gradients(f, *args) for f in (fn, fast(fn))))(
        images, kernel
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(want, got)
    for name, a, b in zip(("value", "images", "kernel"), want, got, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if name == "value" and exact_value:
            np.testing.assert_array_equal(a, b)
        scale = np.abs(a).max(initial=0) + 1e-30
        np.testing.assert_allclose(b / scale, a / scale, rtol=0, atol=tolerance, err_msg=name)


def equations(jaxpr):
    """All equations, those of nested functions included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def replaced(fn, *args):
    return any(e.primitive.name == "custom_jvp_call" for e in equations(trace(fast(fn), *args)))


def trace(fn, *args):
    return jax.make_jaxpr(fn)(*args).jaxpr


def slow_convolutions(fn, *args):
    """The convolutions of a traced function that are not in XLA:CPU's fast layout."""
    found = [e for e in equations(trace(fn, *args)) if e.primitive.name == "conv_general_dilated"]
    return [e for e in found if e.params["dimension_numbers"] != FAST[e.invars[0].aval.ndim]]
