"""Measurements of speed as Markdown, with the machine that they are of in the first cell."""

import math
from collections.abc import Callable
from typing import Any

Rows = list[list[str]]

COMPILE_COLUMNS = (
    ("trace", "trace_seconds"),
    ("lower", "lower_seconds"),
    ("compile", "compile_seconds"),
    ("processor time of the three", "total_cpu_seconds"),
    ("from the cache", "warm_compile_seconds"),
    ("exported, compile", "exported_compile_seconds"),
    ("first run", "first_seconds"),
    ("next runs", "steady_seconds"),
    ("bound of a run", "bound_seconds"),
    ("instructions", "instructions"),
    ("temporary", "temporary_bytes"),
)


def bench_rows(results: dict[str, Any]) -> Rows:
    """A file that `jaxrobust bench` wrote, as rows of cells; the first names the columns.

    Args:
      results: what the JSON file holds.

    Returns:
      The rows.

    Raises:
      ValueError: if there is no table of its kind.
    """
    kind = results["bench"]
    if kind not in RENDERED:
        raise ValueError(f"there is no table of bench {kind!r}; there is of {', '.join(RENDERED)}")
    head, *rows = RENDERED[kind](results)
    return [[f"{head[0]} ({machine_name(results)})", *head[1:]], *rows]


def machine_name(results: dict[str, Any]) -> str:
    """The machine in words: `AMD EPYC, 2 cores, busy; jax 0.10.2`."""
    version = f"jax {results['provenance']['versions']['jax']}"
    host: Any = results.get("machine")
    if host is None:  # measured before the machine was recorded
        return f"{results['provenance']['devices']['platform']}; {version}"
    name = f"{host['processor']}, {host['cores']} cores{', busy' * host['busy']}; {version}"
    topology = results.get("topology")
    return f"for {topology}, compiled on {name}" if topology else name


def _compile(results: dict[str, Any]) -> Rows:
    rows = results["rows"]
    shown = [c for c in COMPILE_COLUMNS if any(c[1] in row["figures"] for row in rows)]
    table = [["program, form", "network", "steps", *(head for head, _ in shown)]]
    for row in rows:
        network = f"PreActResNet-18, width {row['width']}"
        if row["model"] == "wide_resnet":
            network = f"WRN-{row['depth']}-{row['width']}"
        names = [f"{row['program']}, {row['form']}", network, str(row["steps"])]
        cells = [_figure(name, row["figures"].get(name)) for _, name in shown]
        if row["problem"]:
            cells = [row["problem"], *["-"] * (len(shown) - 1)]
        table.append([*names, *cells])
    return table


def _figure(name: str, spread: dict[str, float] | None) -> str:
    """Median, and for stages that take long the lowest and the highest."""
    if spread is None:
        return "-"
    median, low, high = (spread[part] for part in ("median", "low", "high"))
    if name == "instructions":
        return f"{median:,.0f}"
    if name == "temporary_bytes":
        return f"{median / 2**20:.3g} MiB"
    if name == "compile_seconds" and high > low:
        return f"{_seconds(median)} ({_number(low)} to {_number(high)})"
    return _seconds(median)


def _step(results: dict[str, Any]) -> Rows:
    table = [["what", "time", "beside", "its time", "ratio"]]
    for row in results.get("steps", []):
        parts = row["attack_seconds"] + row["forward_seconds"] + row["outer_seconds"]
        name = f"train step, {row['objective']}"
        table.append([name, *_beside(row["seconds"], "its passes", parts, row["ratio"])])
    loops = {(r["form"], r["steps"]): r["seconds"] for r in results.get("loops", [])}
    compiled = {
        r["steps"]: r["compile_seconds"] for r in results.get("loops", []) if r["form"] == "rolled"
    }
    for (form, steps), seconds in loops.items():
        if form == "unrolled":
            rolled = loops["rolled", steps]
            cells = _beside(rolled, "unrolled", seconds, rolled / seconds)
            table.append([f"PGD-{steps}, rolled", *cells])
    if compiled:
        few, many = min(compiled), max(compiled)
        ratio = compiled[many] / compiled[few]
        cells = _beside(compiled[many], f"PGD-{few}", compiled[few], ratio)
        table.append([f"compilation of PGD-{many}", *cells])
    for row in results.get("torch", []):
        cells = _beside(row["seconds"], "PyTorch eager", row["torch_seconds"], row["ratio"])
        table.append([row["program"], *cells])
    ours = next((r for r in results.get("torch_step", []) if r["form"] == "jaxrobust"), None)
    for row in results.get("torch_step", []):
        if row is ours or ours is None:
            continue
        cells = [_seconds(ours["seconds"]), row["form"], row["problem"], "-"]
        if not row["problem"]:
            cells = _beside(ours["seconds"], row["form"], row["seconds"], row["ratio"])
        table.append(["train step, trades", *cells])
    return table


def _beside(seconds: float, other: str, its: float, ratio: float) -> list[str]:
    return [_seconds(seconds), other, _seconds(its), f"{ratio:.2f}"]


def _convolutions(results: dict[str, Any]) -> Rows:
    table = [["network", "images", "gradient of", "stock", "fast", "stock over fast"]]
    for row in results["rows"]:
        times = (_seconds(row[name] / 1e3) for name in ("stock_ms", "fast_ms"))
        shape = " x ".join(map(str, row["images"]))
        table.append([row["name"], shape, row["gradient"], *times, f"{row['speedup']:.2f}"])
    return table


def _attack(results: dict[str, Any]) -> Rows:
    head = ["attack", "compile", "time", "time of its passes", "ratio"]
    return [
        head,
        *(
            [
                row["attack"],
                *(_seconds(row[name]) for name in ("compile_seconds", "seconds", "passes_seconds")),
                f"{row['ratio']:.2f}",
            ]
            for row in results["rows"]
        ),
    ]


def _peers(results: dict[str, Any]) -> Rows:
    table = [["PGD of", "version", "time", "over ours", "robust", "images differ by (eps)"]]
    for row in results["rows"]:
        cells = [_seconds(row["seconds"]), f"{row['ratio'] or math.nan:.2f}", str(row["robust"])]
        cells.append(f"{row['image_difference'] or 0:.2g}")
        if row["problem"]:
            cells = [row["problem"], "-", "-", "-"]
        table.append([row["library"], row["version"] or "-", *cells])
    return table


def _many(results: dict[str, Any]) -> Rows:
    head = ["form", "runs", "time", "ratio"]
    return [
        head,
        *(
            [row["form"], str(row["runs"]), _seconds(row["seconds"]), f"{row['ratio']:.2f}"]
            for row in results["rows"]
        ),
    ]


def _throughput(results: dict[str, Any]) -> Rows:
    head = ["experiment", "device", "batch", "step", "images/s", "FLOPs an image", "FLOP/s"]
    table = [[*head, "matrix products", "share"]]
    for row in results["rows"]:
        names = row["experiment"], f"{row['devices']} x {row['device']}, {row['dtype']}"
        rates = (_large(row[n]) for n in ("flops_per_image", "flops_per_second"))
        cells = [str(row["batch_size"]), _seconds(row["step_seconds"])]
        cells += [_number(row["images_per_second"]), *rates]
        peak = _large(row["peak_flops_per_second"])
        table.append([*names, *cells, peak, f"{100 * row['share']:.0f} %"])
    return table


def _large(value: float) -> str:
    for unit, name in ((1e15, "P"), (1e12, "T"), (1e9, "G")):
        if value >= unit:
            return f"{_number(value / unit)} {name}"
    return f"{_number(value / 1e6)} M"


RENDERED: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "compile": _compile,
    "step": _step,
    "convolutions": _convolutions,
    "attack": _attack,
    "peers": _peers,
    "many": _many,
    "throughput": _throughput,
}


def _seconds(value: float | None) -> str:
    """With a unit that leaves three digits."""
    if value is None or math.isnan(value):
        return "-"
    return f"{_number(1e3 * value)} ms" if value < 1 else f"{_number(value)} s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
