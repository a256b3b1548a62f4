"""Timing several programs side by side."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

Key = TypeVar("Key")


def least_times(programs: Mapping[Key, Callable[[], Any]], repeats: int) -> dict[Key, float]:
    """Seconds of each program: all in turn, `repeats` times after one warm-up; the least counts.

    Interleaving spreads other work on the machine over all of them; the least time is the one
    that was disturbed least.

    Args:
      programs: compiled calls without arguments.
      repeats: of each.

    Returns:
      Seconds by name.
    """
    seconds = dict.fromkeys(programs, float("inf"))
    for repeat in range(repeats + 1):
        for name, program in programs.items():
            started = time.perf_counter()
            jax.block_until_ready(program())
            if repeat:
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds
