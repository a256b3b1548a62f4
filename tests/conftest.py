"""Strict JAX for every test: promotion of dtypes and ranks is an error, eight virtual devices."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import pathlib

import jax
import numpy as np
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

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
def key():
    return jax.random.key(0)
