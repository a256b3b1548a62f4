"""The machine that figures are of, and whether it was busy with other work."""

import os
import pathlib
import platform
import re
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, cores and load; to be taken before a measurement begins.

    Returns:
      Plain JSON types: `processor`, `cores`, `memory_gib`, `system`; `load_before`, the mean number
      of running processes over the last minute; `busy`, whether they left less than half the
      cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "processor": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.processor(),
        "cores": cores,
        "memory_gib": round(int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(load, 2),
        "busy": load > (cores or 1) / 2,
    }


def _first(pattern: str, file: str) -> str:
    path = pathlib.Path(file)
    found = re.search(pattern, path.read_text()) if path.is_file() else None
    return found[1].strip() if found else ""
