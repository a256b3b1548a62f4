"""The table of convolution speeds, and that it refuses to time a wrong result."""

import pytest
from jax import lax

from benchmarks import convolution_table as bench

TINY = bench.ConvolutionCase("tiny", (2, 6, 6, 8), ((3, 8, 1),), residual=True)


def test_one_row_per_network_and_gradient():
    rows = bench.convolution_table([TINY], steps=2, repeats=1)
    assert [row.gradient for row in rows] == ["none", "images", "params"]
    assert all(row.logits_difference == 0 and row.speedup > 0 for row in rows)


def test_an_unknown_gradient_is_refused():
    with pytest.raises(ValueError, match="weights"):
        bench.convolution_table([TINY], gradients=["weights"])


def wrong_value(fn, enabled):
    return lambda *args: 1.01 * fn(*args)


def wrong_gradient(fn, enabled):
    def same_value(params, images):
        other = fn(params, images[:, ::-1])
        return other + lax.stop_gradient(fn(params, images) - other)

    return same_value


@pytest.mark.parametrize(
    ("wrong", "gradient"),
    [
        *((wrong_value, name) for name in bench.GRADIENTS),
        *((wrong_gradient, name) for name in bench.GRADIENTS[1:]),
    ],
)
def test_a_wrong_form_is_not_timed(monkeypatch, wrong, gradient):
    monkeypatch.setattr(bench, "fast_on_cpu", wrong)
    with pytest.raises(AssertionError, match="disagree"):
        bench.convolution_table([TINY], gradients=[gradient], steps=2, repeats=1)
