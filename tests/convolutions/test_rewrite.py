"""Convolutions are found wherever they are nested; everything else keeps its meaning."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrobust.convolutions import _rewrite
from tests.convolutions.comparing import (
    assert_same,
    convolution,
    fast,
    jit,
    random,
    slow_convolutions,
    trace,
)

# Nesting.


def conv_in(wrapper):
    """(images, kernel) -> images, with a convolution inside `wrapper`; shapes are kept."""
    conv = convolution()

    def fn(images, kernel):
        return jnp.tanh(wrapper(lambda x: jnp.tanh(conv(x, kernel)), images) * 0.5)

    return fn


@jax.custom_jvp
def strange(x):
    return x


strange.defjvp(lambda primals, tangents: (primals[0], 3 * tangents[0]))

WRAPPERS = {
    "jit": lambda f, x: jax.jit(jax.jit(f))(x),
    "checkpoint": lambda f, x: jax.checkpoint(f)(x),
    "checkpoint policy": lambda f, x: jax.checkpoint(
        f, policy=jax.checkpoint_policies.dots_saveable
    )(x),
    "scan": lambda f, x: lax.scan(lambda c, s: (f(c) * s, c.sum()), x, jnp.arange(1.0, 4.0))[0],
    "fori_loop": lambda f, x: lax.fori_loop(0, 3, lambda _, c: f(c), x),
    "cond": lambda f, x: lax.cond(x.sum() > -1e9, f, lambda x: 2 * x, x),
    "switch": lambda f, x: lax.switch(1, [lambda x: x, f, jnp.tanh], x),
    "map": lambda f, x: lax.map(lambda one: f(one[None])[0], x),
    "vmap": lambda f, x: jax.vmap(lambda one: f(one[None])[0])(x),
    "constants": lambda f, x: f(x + np.float32(0.5)) + np.ones((2, 6, 6, 8), np.float32),
    "relu": lambda f, x: jax.nn.relu(jax.nn.silu(f(x))),
    "own rule beside": lambda f, x: strange(f(x)),
    "all": lambda f, x: lax.scan(
        lambda c, _: (jax.checkpoint(jax.jit(lambda y: lax.cond(True, f, f, y)))(c), None),
        x,
        None,
        2,
    )[0],
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_nested_convolutions(name):
    fn = conv_in(WRAPPERS[name])
    images, kernel = random(0, (2, 6, 6, 8)), random(1, (3, 3, 8, 8)) * 0.2
    loss = lambda fn: lambda *args: fn(*args).sum()  # noqa: E731
    assert slow_convolutions(jax.grad(loss(fn)), images, kernel)
    assert not slow_convolutions(jax.grad(loss(fast(fn))), images, kernel)
    # The body of a loop is compiled apart from the rest, so its values agree to rounding only.
    assert_same(fn, images, kernel, exact_value=False)


def test_while_loop_and_forward_mode():
    fn = conv_in(
        lambda f, x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, f(c[1])), (0, x))[1]
    )
    args = random(0, (2, 6, 6, 8)), random(1, (3, 3, 8, 8)) * 0.2
    want, got = (jit(lambda *a, f=f: jax.jvp(f, a, a))(*args) for f in (fn, fast(fn)))
    chex.assert_trees_all_close(got, want, atol=1e-5)


@pytest.mark.parametrize("kind", ["jvp", "vjp"])
def test_authors_own_rules_win(kind):
    """A rule that is deliberately not the derivative, around a convolution."""
    conv, kernel = convolution(), random(1, (3, 3, 8, 8))

    def fn(images):
        if kind == "jvp":
            own = jax.custom_jvp(lambda x: conv(x, kernel))
            own.defjvp(lambda primals, tangents: (own(primals[0]), 3 * tangents[0]))
        else:
            own = jax.custom_vjp(lambda x: conv(x, kernel))
            own.defvjp(lambda x: (own(x), None), lambda _, g: (3 * g,))
        return own(images)

    images = random(0, (2, 6, 6, 8))
    gradient = jit(jax.grad(lambda images: fast(fn)(images).sum()))(images)
    np.testing.assert_array_equal(gradient, np.full(images.shape, 3, np.float32))
    chex.assert_trees_all_equal(fast(fn)(images), fn(images))


def test_eager_calls_do_not_compile_again():
    """`jit` recognises a compiled program by the identity of the function it holds."""
    inner = jax.jit(lambda x, kernel: convolution()(x, kernel))
    fn = fast(lambda x, kernel: inner(x, kernel))
    args = random(0, (4, 8, 8, 3)), random(1, (3, 3, 3, 8))
    first, second = (trace(fn, *args).eqns[0].params["jaxpr"] for _ in range(2))
    assert first is second
    assert any(eqn.primitive.name == "custom_jvp_call" for eqn in first.eqns)


@pytest.mark.parametrize("with_convolution", [True, False])
def test_traced_functions_are_released(with_convolution):
    kernel = random(1, (3, 3, 3, 4))
    # The lambda: JAX keeps what it has traced as long as the function lives.
    fn = convolution() if with_convolution else jnp.add
    jaxpr = jax.make_jaxpr(lambda x: fn(x, kernel))(
        random(0, (3, 3, 3, 3 if with_convolution else 4))
    )
    copy, dead = _rewrite.rewrite(jaxpr), weakref.ref(jaxpr)
    assert copy is _rewrite.rewrite(jaxpr)
    assert (copy is not jaxpr) == with_convolution
    del copy, jaxpr
    gc.collect()
    assert dead() is None
