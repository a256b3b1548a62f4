"""What the tests of networks share: quick compilation, and closeness as the golden files state it."""

from collections.abc import Callable

import jax
import numpy as np

# A network runs once here: compiling it well would take longer than running it badly.
_OPTIONS: dict[str, int | bool] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    _OPTIONS["xla_cpu_use_fusion_emitters"] = False


def quick(function: Callable) -> Callable:
    """`jax.jit` that compiles in half the time."""
    return jax.jit(function, compiler_options=_OPTIONS)


def assert_close(actual, expected, tolerance: float) -> None:
    """The largest difference is at most `tolerance` times the largest expected magnitude."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
