"""Measurements of speed as Markdown, with their machine in the first cell."""

from collections.abc import Callable
from typing import Any

from jaxrobust.bench import machine_name, number_text, seconds_text

Rows = list[list[str]]
Renderer = Callable[[dict[str, Any]], Rows]


def bench_rows(results: dict[str, Any]) -> Rows:
    """A file that `jaxrobust bench` wrote, as rows of cells; the first names the columns.

    Args:
      results: the content of the JSON file.

    Returns:
      The rows.

    Raises:
      ValueError: if there is no table for this kind of benchmark.
    """
    kind = results["bench"]
    if kind not in RENDERED:
        raise ValueError(
            f"there is no table for bench {kind!r}, only for {', '.join(RENDERED)}; tables of "
            "other benchmarks are printed by `python -m benchmarks table` in a clone"
        )
    return with_machine(results, RENDERED[kind](results))


def with_machine(results: dict[str, Any], rows: Rows) -> Rows:
    """The rows with the machine of their measurements in the first cell."""
    head, *rows = rows
    return [[f"{head[0]} ({machine_name(results)})", *head[1:]], *rows]


def _step(results: dict[str, Any]) -> Rows:
    table = [["what", "time", "beside", "its time", "ratio"]]
    for row in results["rows"]:
        parts = row["attack_seconds"] + row["forward_seconds"] + row["outer_seconds"]
        name = f"train step, {row['objective']}"
        cells = [seconds_text(row["seconds"]), "its passes", seconds_text(parts)]
        table.append([name, *cells, f"{row['ratio']:.2f}"])
    return table


def _attack(results: dict[str, Any]) -> Rows:
    table = [["attack", "compile", "time", "time of its passes", "ratio"]]
    times = ("compile_seconds", "seconds", "passes_seconds")
    for row in results["rows"]:
        cells = [seconds_text(row[name]) for name in times]
        table.append([row["attack"], *cells, f"{row['ratio']:.2f}"])
    return table


def _many(results: dict[str, Any]) -> Rows:
    table = [["form", "runs", "time", "ratio"]]
    for row in results["rows"]:
        cells = [str(row["runs"]), seconds_text(row["seconds"]), f"{row['ratio']:.2f}"]
        table.append([row["form"], *cells])
    return table


def _throughput(results: dict[str, Any]) -> Rows:
    head = ["experiment", "device", "batch", "step", "images/s", "FLOPs an image", "FLOP/s"]
    table = [[*head, "matrix products", "share"]]
    for row in results["rows"]:
        names = row["experiment"], f"{row['devices']} x {row['device']}, {row['dtype']}"
        rates = (_large(row[n]) for n in ("flops_per_image", "flops_per_second"))
        cells = [str(row["batch_size"]), seconds_text(row["step_seconds"])]
        cells += [number_text(row["images_per_second"]), *rates]
        peak = _large(row["peak_flops_per_second"])
        table.append([*names, *cells, peak, f"{100 * row['share']:.0f} %"])
    return table


def _large(value: float) -> str:
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if value >= unit:
            return f"{number_text(value / unit)} {name}"
    return f"{number_text(value / 1e6)} M"


RENDERED: dict[str, Renderer] = {
    "attack": _attack,
    "many": _many,
    "step": _step,
    "throughput": _throughput,
}
