"""Strict JAX for every test: promotion of dtypes and ranks is an error, eight virtual devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"

import gc
import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests.xla import flags

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags(8)}".strip()

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects that live on: with Python's 700 a collection takes a seventh of the time.
gc.set_threshold(50_000, 10, 10)

# Compiled programs are kept in `.cache/tests`, for all workers and the next session: most of the
# suite's time. JAX finds one by its code, its options and the version of the compiler.
CACHE, LIMIT = pathlib.Path(__file__).parents[1] / ".cache" / "tests", 2**30


def keep_programs(folder: pathlib.Path) -> None:
    """Keeps every compiled program in `folder`, which is emptied once it holds over a gigabyte."""
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > LIMIT and "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(folder)
        folder.mkdir()
    for name, value in {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        os.environ[name.upper()] = str(value)  # of the processes that tests start
        jax.config.update(name, value)


if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    keep_programs(CACHE)

GOLDEN = pathlib.Path(__file__).parent / "golden"
MAPPINGS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Drops compiled programs after a file of tests once there are many.

    Each has mappings of memory, of which Linux allows a process 65,530; JAX crashes beyond.
    """
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


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
