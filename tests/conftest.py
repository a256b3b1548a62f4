"""Strict JAX for every test: promotion of dtypes and ranks is an error, eight virtual devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import pathlib
import tempfile

import jax
import numpy as np
import pytest

# Most of the time goes into compiling programs that run for milliseconds: not compiling them well
# halves it.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if jax.__version_info__ < (0, 11):  # later ones have no other way, and no such flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiled programs are shared by the tests, workers and processes of one session: half its time.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="jaxrobust-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    jax.config.update("jax_compilation_cache_dir", CACHE.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture
def float64():
    """Golden values of the authors' code are float64; the library follows its inputs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def golden():
    """`golden(name)` reads reference values from `tests/golden/<name>.npz`."""

    def read(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            return dict(archive)

    return read


@pytest.fixture
def compilations():
    """The names of the functions that have been compiled (or read from the cache) so far."""
    names: list[str] = []

    def listen(event: str, duration: float, **details: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def key():
    return jax.random.key(0)
