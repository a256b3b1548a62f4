"""Measures one program in a process that has done nothing else: a task on stdin, JSON on stdout.

Command:  echo '{"mode": "cold", "case": {"program": "pgd"}}' \
            | python -m benchmarks.compile_worker
"""

import importlib.util
import json
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = ", re.MULTILINE)
ENOUGH_SECONDS = 2.0


def main() -> None:
    """Reads the task, measures, writes the figures as the last line."""
    task = json.loads(sys.stdin.read())
    if task["case"]["form"] == "stock" or task["mode"] == "tpu":  # before JAX is imported
        os.environ["JAXROBUST_FAST_CONVOLUTIONS"] = "0"
    import jax

    from benchmarks.compile_case import Case, parts_of
    from jaxrobust.devices import device_mesh

    case, folder = Case(**task["case"]), pathlib.Path(task["folder"])
    if task["mode"] == "tpu":
        found = _for_tpu(case, task["topology"])
    else:
        mesh = device_mesh(jax.devices()[:1])
        parts = parts_of(case, mesh, lambda tree, split: jax.device_put(tree))
        if case.form == "eager":
            found = _eager(parts, task["runs"])
        elif task["mode"] == "cold":
            found = _cold(parts, task["runs"], folder, task["again"])
        else:
            found = _again(parts, folder)
    print(json.dumps(found))


def _eager(parts: list[Any], runs: int) -> dict[str, Any]:
    """Every operation is compiled by itself, once; then they are run one after the other."""
    import jax

    figures: dict[str, Any] = {}
    values = []
    with jax.disable_jit():
        for part in parts:
            out, first, _ = _timed(partial(part.function, *part.arguments))
            _add(figures, {"first_seconds": first})
            _add(figures, _steady(partial(part.function, *part.arguments), runs))
            values += part.values(out)
    return {**figures, "values": values}


def _cold(parts: list[Any], runs: int, folder: pathlib.Path, again: bool) -> dict[str, Any]:
    """From nothing to results; for the next process also leaves the programs in a cache."""
    import jax

    figures: dict[str, Any] = {}
    values = []
    _cache(folder / "cache" if again else None)
    for number, part in enumerate(parts):
        program, stages = _staged(part)
        _add(figures, stages)
        out, first, _ = _timed(partial(program, *part.arguments))
        _add(figures, {"first_seconds": first})
        _add(figures, _steady(partial(program, *part.arguments), runs))
        _add(figures, size_of(program))
        values += part.values(out)
        if again and can_serialize():
            exported = jax.export.export(part.function)(*part.arguments)
            (folder / f"{number}.exported").write_bytes(exported.serialize())
    return {**figures, "values": values}


def _again(parts: list[Any], folder: pathlib.Path) -> dict[str, Any]:
    """In a second process: with the persistent cache, then from the exported program."""
    import jax

    figures: dict[str, Any] = {}
    values = []
    _cache(folder / "cache")
    for part in parts:
        program, stages = _staged(part)
        _add(figures, {f"warm_{name}": value for name, value in stages.items()})
    _cache(None)
    if not can_serialize():
        return figures
    for number, part in enumerate(parts):
        data = bytearray((folder / f"{number}.exported").read_bytes())
        exported, load, _ = _timed(partial(jax.export.deserialize, data))
        program, compile_seconds, _ = _timed(partial(_compiled, exported.call, part.arguments))
        stages = {"load_seconds": load, "compile_seconds": compile_seconds}
        _add(figures, {f"exported_{name}": value for name, value in stages.items()})
        _add(figures, {"exported_bytes": len(data)})
        values += part.values(program(*part.arguments))
    return {**figures, "values": values}


def can_serialize() -> bool:
    """Whether exported programs can be written: JAX needs flatbuffers for that."""
    return importlib.util.find_spec("flatbuffers") is not None


def _staged(part: Any) -> tuple[Any, dict[str, float]]:
    """A compiled program, and the seconds that each stage took."""
    traced, *trace = _timed(lambda: part.function.trace(*part.arguments))
    lowered, *lower = _timed(traced.lower)
    program, *compilation = _timed(lowered.compile)
    stages = {"trace_seconds": trace[0], "lower_seconds": lower[0]}
    stages |= {"compile_seconds": compilation[0]}
    stages["total_seconds"] = sum(stages.values())
    stages["total_cpu_seconds"] = trace[1] + lower[1] + compilation[1]
    return program, stages


def size_of(program: Any) -> dict[str, int]:
    """Instructions of the optimised program, and bytes of its temporaries."""
    return {
        "instructions": len(INSTRUCTION.findall(program.as_text())),
        "temporary_bytes": program.memory_analysis().temp_size_in_bytes,
    }


def _for_tpu(case: Any, topology: str) -> dict[str, Any]:
    """Compiles for chips that are not here."""
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from benchmarks.compile_case import parts_of
    from jaxrobust.bench import parse_topology, program_cost, slice_devices
    from jaxrobust.devices import AXIS, device_mesh

    chip, _ = parse_topology(topology)
    mesh = device_mesh(slice_devices(topology))

    def place(tree: Any, split: bool) -> Any:
        sharding = NamedSharding(mesh, P(AXIS) if split else P())
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    figures: dict[str, Any] = {}
    _cache(None)
    for part in parts_of(case, mesh, place):
        program, stages = _staged(part)
        cost = program_cost(program.as_text())
        times = (
            cost.matrix_flops / chip.flops,
            cost.memory_bytes / chip.memory_bandwidth,
            2 * (mesh.size - 1) / mesh.size * cost.collective_bytes / chip.link_bandwidth,
        )
        _add(figures, {**stages, **size_of(program), "bound_seconds": max(times)})
    return figures


def _cache(folder: pathlib.Path | None) -> None:
    """Switches the persistent cache to a folder, or off."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    config.update("jax_enable_compilation_cache", folder is not None)
    config.update("jax_compilation_cache_dir", None if folder is None else str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()


def _compiled(function: Callable, arguments: tuple[Any, ...]) -> Any:
    import jax

    from jaxrobust.convolutions import compiler_options

    return jax.jit(function).lower(*arguments).compile(compiler_options())


def _timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, the seconds until it was there, and the processor's seconds of all threads."""
    import jax

    started, used = time.perf_counter(), time.process_time()
    out = call()
    if isinstance(out, tuple):
        jax.block_until_ready(out)
    return out, time.perf_counter() - started, time.process_time() - used


def _steady(call: Callable[[], Any], runs: int) -> dict[str, float]:
    """The median of some runs after the first; fewer where they take long."""
    seconds: list[float] = []
    used: list[float] = []
    while len(seconds) < runs and sum(seconds) < ENOUGH_SECONDS:
        _, *taken = _timed(call)
        seconds.append(taken[0])
        used.append(taken[1])
    return {
        "steady_seconds": statistics.median(seconds),
        "steady_cpu_seconds": statistics.median(used),
    }


def _add(figures: dict[str, Any], more: dict[str, Any]) -> None:
    """Sums over the parts of a program; of memory, the largest part counts."""
    for name, value in more.items():
        old = figures.get(name, 0)
        figures[name] = max(old, value) if name == "temporary_bytes" else old + value


if __name__ == "__main__":
    main()
