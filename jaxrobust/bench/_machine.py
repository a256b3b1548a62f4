"""The machine that was measured, and whether other work kept it busy."""

import os
import pathlib
import platform
import re
import time
from typing import Any


def machine() -> dict[str, Any]:
    """Processor, cores and load; to be taken before a measurement begins.

    Returns:
      Plain JSON types: `processor`, `cores`, `memory_gib`, `system`; `load_before`, the mean number
      of cores at work over a second (where the system does not say, of running processes over the
      last minute); `busy`, whether that left less than half the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = _cores_at_work()
    return {
        "processor": _first(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.processor(),
        "cores": cores,
        "memory_gib": round(int(_first(r"MemTotal:\s*(\d+)", "/proc/meminfo") or 0) / 2**20, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(load, 2),
        "busy": load > (cores or 1) / 2,
    }


def _cores_at_work(seconds: float = 1.0) -> float:
    """Over the next second: the load of the last minute also counts what has just ended."""
    stat = pathlib.Path("/proc/stat")
    if not stat.is_file():
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

    def busy_ticks() -> int:  # user, nice, system; then idle, waiting for disks, interrupts
        ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:8]]
        return sum(ticks) - ticks[3] - ticks[4]

    before = busy_ticks()
    time.sleep(seconds)
    return (busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _first(pattern: str, file: str) -> str:
    path = pathlib.Path(file)
    found = re.search(pattern, path.read_text()) if path.is_file() else None
    return found[1].strip() if found else ""
