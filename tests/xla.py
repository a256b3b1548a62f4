"""Flags of XLA with which programs compile fast."""

import jax


def flags(devices: int) -> str:
    """So many virtual devices, and code that is compiled quickly instead of well.

    Most of the tests' time goes into compiling programs that run for milliseconds: this halves it.
    """
    found = [
        f"--xla_force_host_platform_device_count={devices}",
        "--xla_backend_optimization_level=0",
    ]
    if jax.__version_info__ < (0, 11):  # later ones have no other way, and no such flag
        found.append("--xla_cpu_use_fusion_emitters=false")
    return " ".join(found)
