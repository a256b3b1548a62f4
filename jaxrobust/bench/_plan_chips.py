"""TPU chips, and slices of them that are not there."""

import importlib.util
import math
import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from jaxrobust.reasons import first_line


class Chip(NamedTuple):
    """What a chip can do at most; per chip, not per core.

    Attributes:
      flops: multiplications and additions per second in bfloat16, which is also how the matrix
        units take float32 at JAX's default precision.
      memory_bytes: of its memory.
      memory_bandwidth: bytes per second between the chip and its memory.
      link_bandwidth: bytes per second that it can send to its neighbours, over all links.
      axes: of the torus.
      source: of these figures.
      config: libtpu's name for one device per chip, where a chip has two cores.
    """

    flops: float
    memory_bytes: float
    memory_bandwidth: float
    link_bandwidth: float
    axes: int
    source: str
    config: str | None = None


GIB = 2.0**30
# Links: v4 has six of 50 GB/s (Jouppi et al., 2023, arXiv:2304.01433); the others' pages say 1600,
# 4800 and 3200 Gbit/s. The compiler itself knows the memory to the byte and refuses what is larger.
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1200e9, 300e9, 3, "cloud.google.com/tpu/docs/v4", "megacore"),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9, 2, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9, 3, "cloud.google.com/tpu/docs/v5p", "megacore"),
    "v6e": Chip(918e12, 32 * GIB, 1600e9, 400e9, 2, "cloud.google.com/tpu/docs/v6e"),
}


class TPUCompilerError(OSError):
    """There is no TPU compiler, or it cannot be used now; the message says what to do."""


def parse_topology(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip and the shape of a slice.

    Args:
      topology: such as "v5e:16x16" or "v4:2x2x4"; numbers of chips.

    Returns:
      The chip and the numbers of chips along the axes of the torus.

    Raises:
      ValueError: if there is no such chip, or its slices have another number of axes.
    """
    generation, _, shape = topology.partition(":")
    if generation not in CHIPS:
        raise ValueError(f"topology: chip {generation!r} is unknown; choose {', '.join(CHIPS)}")
    chip = CHIPS[generation]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape) or shape.count("x") + 1 != chip.axes:
        example = {2: "4x4", 3: "2x2x4"}[chip.axes]
        raise ValueError(
            f"topology: {generation} has {chip.axes} axes, as {generation}:{example}; "
            f"got {topology!r}"
        )
    return chip, tuple(int(size) for size in shape.split("x"))


def check_compiler(topology: str) -> tuple[Chip, tuple[int, ...]]:
    """`parse_topology`, if there is a TPU compiler.

    Raises:
      ValueError: if there is no such slice.
      TPUCompilerError: if libtpu is missing.
    """
    found = parse_topology(topology)
    if "TPU_LIBRARY_PATH" not in os.environ and importlib.util.find_spec("libtpu") is None:
        raise TPUCompilerError(
            "planning needs the TPU compiler, libtpu: pip install 'jaxrobust[tpu]' (no TPU needed)"
        )
    return found


def slice_devices(topology: str) -> list[Any]:
    """The devices of a slice that is not there; programs compile for them, nothing can run.

    Args:
      topology: such as "v5e:16x16".

    Returns:
      One device per chip.

    Raises:
      ValueError: if there is no such slice.
      TPUCompilerError: if libtpu is missing, or another process holds it.
    """
    chip, shape = check_compiler(topology)
    options: dict[str, Any] = {} if chip.config is None else {"chip_config_name": chip.config}
    if math.prod(shape) == 1:  # less than a host's 2 x 2
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        found = topologies.get_topology_desc(topology, platform="tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error) or "already in use" in str(error):
            raise TPUCompilerError(
                "another process holds the TPU compiler (libtpu serves one at a time): wait for "
                "it, or set ALLOW_MULTIPLE_LIBTPU_LOAD=1 where no TPU is attached"
            ) from error
        if "INVALID_ARGUMENT" in str(error):
            raise ValueError(
                f"topology: there is no slice {topology}: {first_line(error)}"
            ) from error
        raise TPUCompilerError(f"the TPU compiler cannot be used: {first_line(error)}") from error
    return found.devices
