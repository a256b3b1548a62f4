"""Options for XLA's compiler, for the one release whose own convolutions are slow."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jaxlib

_SWITCH = "JAXROBUST_FAST_CONVOLUTIONS"

# jaxlib 0.10.2, the last one for Python 3.11, hands convolutions to a library that takes up to
# twice as long as Eigen for 16 to 64 channels (3x3, 64 channels, 32 images of 32x32, two cores:
# 24.9 against 14.0 ms); 0.10.1 and 0.11.0 to 0.12.0 do not. What else that library gets by default
# stays with it.
_OPTIONS = {
    "0.10.2": {
        "xla_cpu_experimental_ynn_fusion_type": (
            "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
        )
    }
}


def wanted() -> bool:
    """Whether this process runs on CPUs and JAXROBUST_FAST_CONVOLUTIONS is not "0"."""
    return os.environ.get(_SWITCH) != "0" and jax.default_backend() == "cpu"


def compiler_options() -> dict[str, Any]:
    """What to compile with, so that convolutions on CPU are as fast as the installed XLA can.

    The library compiles with these options wherever it compiles itself (training, evaluation,
    AutoAttack). Around an attack of your own, hand them to `jax.jit` or to `.compile()`.

    Returns:
      Options by name: none but for jaxlib 0.10.2 on CPU, and none if the environment variable
      JAXROBUST_FAST_CONVOLUTIONS is "0".

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust.convolutions import compiler_options
      >>> double = jax.jit(lambda x: 2 * x, compiler_options=compiler_options())
      >>> double(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """
    return dict(_OPTIONS.get(jaxlib.__version__, {})) if wanted() else {}


def jit(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` with `compiler_options`, which are asked for when the function is first called.

    At import it is not known yet on what the program will run, and asking would settle it.

    Args:
      fn: as for `jax.jit`.
      **options: as for `jax.jit`.

    Returns:
      The compiled function. Called while another function is traced it is plain `jax.jit`: JAX
      takes compiler options of the outermost program only.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.convolutions import jit
      >>> jit(lambda x: 2 * x)(jnp.ones(2)).tolist()
      [2.0, 2.0]
    """

    inner = jax.jit(fn, **options)

    @functools.cache
    def outermost() -> Callable[..., Any]:
        return jax.jit(fn, compiler_options=compiler_options(), **options)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        return (inner if traced else outermost())(*args, **kwargs)

    return call
