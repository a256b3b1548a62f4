"""Options for the compiler: only where they help, and only when a program is compiled."""

import re

import jax
import jax.numpy as jnp
import jaxlib
import pytest
from jax import lax

from jaxrobust import convolutions
from jaxrobust.convolutions import compiler_options


@pytest.fixture
def slow_release(monkeypatch):
    monkeypatch.delenv("JAXROBUST_FAST_CONVOLUTIONS", raising=False)
    monkeypatch.setattr(jaxlib, "__version__", "0.10.2")


@pytest.mark.usefixtures("slow_release")
def test_only_the_slow_release_gets_options(monkeypatch):
    assert compiler_options()
    monkeypatch.setattr(jaxlib, "__version__", "0.12.0")
    assert compiler_options() == {}


@pytest.mark.usefixtures("slow_release")
def test_switch(monkeypatch):
    monkeypatch.setenv("JAXROBUST_FAST_CONVOLUTIONS", "0")
    assert compiler_options() == {}
    monkeypatch.delenv("JAXROBUST_FAST_CONVOLUTIONS")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert compiler_options() == {}


def test_the_caller_owns_the_options(slow_release):
    compiler_options().clear()
    assert compiler_options()


@pytest.mark.usefixtures("slow_release")
@pytest.mark.skipif(jax.__version_info__[:3] != (0, 10, 2), reason="asks jaxlib 0.10.2")
def test_the_slow_library_gets_no_convolution_but_keeps_products():
    def fn(x, kernel, matrix):
        maps = lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return maps, matrix @ matrix

    arguments = jnp.ones((2, 8, 8, 32)), jnp.ones((3, 3, 32, 32)), jnp.ones((64, 64))

    def fused(options):
        text = jax.jit(fn).lower(*arguments).compile(options).as_text()
        bodies = re.findall(r"^%fused_computation.*?^}", text, re.DOTALL | re.MULTILINE)
        return {word for word in ("convolution(", "dot(") for body in bodies if word in body}

    assert fused({}) == {"convolution(", "dot("}
    assert fused(compiler_options()) == {"dot("}


def test_jit_asks_at_the_first_call(monkeypatch):
    asked = []
    monkeypatch.setattr(jax, "default_backend", lambda: asked.append(1) or "cpu")
    double = convolutions.jit(lambda x, times: times * x, static_argnums=1)
    assert not asked
    assert float(double(jnp.float32(2), 2)) == 4
    assert float(double(jnp.float32(3), 2)) == 6
    assert len(asked) == 1


def test_jit_inside_another_program(slow_release):
    double = convolutions.jit(lambda x: 2 * x)
    assert float(jax.jit(lambda x: double(x))(jnp.float32(2))) == 4
    assert float(jax.grad(double)(jnp.float32(2))) == 2
