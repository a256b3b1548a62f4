"""What the benchmarks wrote as Markdown, with the machine that it is of in the first cell."""

import json
import math
import pathlib
from typing import Any

from benchmarks.compile_case import network_name
from benchmarks.fault_kinds import KINDS, OUTCOMES
from jaxrobust.bench import number_text, seconds_text
from jaxrobust.commands import with_machine

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


def table(path: pathlib.Path) -> str:
    """The results in a file as a Markdown table.

    Args:
      path: what a benchmark wrote with `--json`.

    Returns:
      The table.

    Raises:
      ValueError: if the file holds nothing that a benchmark wrote.
    """
    try:
        results = json.loads(path.read_text())
        kind = results["bench"]
        head, *body = with_machine(results, RENDERED[kind](results)) if kind in RENDERED else [[]]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no rows of a benchmark ({type(error).__name__}: {error})"
        ) from None
    if not head:
        raise ValueError(f"{path} is of bench {kind!r}, not of {' or '.join(RENDERED)}")
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *body)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _compile(results: dict[str, Any]) -> Rows:
    rows = results["rows"]
    shown = [c for c in COMPILE_COLUMNS if any(c[1] in row["figures"] for row in rows)]
    table = [["program, form", "network", "steps", *(head for head, _ in shown)]]
    for row in rows:
        names = [f"{row['program']}, {row['form']}", network_name(row), str(row["steps"])]
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
        return f"{seconds_text(median)} ({number_text(low)} to {number_text(high)})"
    return seconds_text(median)


def _convolutions(results: dict[str, Any]) -> Rows:
    table = [["network", "images", "gradient of", "stock", "fast", "stock over fast"]]
    for row in results["rows"]:
        times = (seconds_text(row[name] / 1e3) for name in ("stock_ms", "fast_ms"))
        shape = " x ".join(map(str, row["images"]))
        table.append([row["name"], shape, row["gradient"], *times, f"{row['speedup']:.2f}"])
    return table


def _peers(results: dict[str, Any]) -> Rows:
    table = [["PGD of", "version", "time", "over ours", "robust", "images differ by (eps)"]]
    for row in results["rows"]:
        cells = [row["problem"], "-", "-", "-"]
        if not row["problem"]:
            difference = f"{row['image_difference']:.2g}"
            cells = [
                seconds_text(row["seconds"]),
                f"{row['ratio']:.2f}",
                str(row["robust"]),
                difference,
            ]
        table.append([row["library"], row["version"] or "-", *cells])
    return table


HEAD = ["what", "time", "beside", "its time", "ratio"]


def _forms(results: dict[str, Any]) -> Rows:
    table = [HEAD]
    rolled = {row["steps"]: row for row in results["loops"] if row["form"] == "rolled"}
    for row in results["loops"]:
        if row["form"] == "unrolled":
            looped = rolled[row["steps"]]["seconds"]
            table.append(
                [f"PGD-{row['steps']}, rolled", *_beside(looped, "unrolled", row["seconds"])]
            )
    few, many = min(rolled), max(rolled)
    compiled = [rolled[steps]["compile_seconds"] for steps in (many, few)]
    table.append([f"compilation of PGD-{many}", *_beside(compiled[0], f"PGD-{few}", compiled[1])])
    for row in results["transforms"]:
        cells = _beside(row["seconds"], "without", row["plain_seconds"])
        table.append([f"train step, pgd_at, images moved ({row['method']})", *cells])
    return table


def _beside(seconds: float, other: str, its: float) -> list[str]:
    return [seconds_text(seconds), other, seconds_text(its), f"{seconds / its:.2f}"]


def _pytorch(results: dict[str, Any]) -> Rows:
    table = [HEAD]
    for row in results["passes"]:
        cells = _beside(row["seconds"], "PyTorch eager", row["torch_seconds"])
        table.append([row["program"], *cells])
    ours, *others = results["step"]
    for row in others:
        cells = [seconds_text(ours["seconds"]), row["form"], row["problem"], "-"]
        if not row["problem"]:
            cells = _beside(ours["seconds"], row["form"], row["seconds"])
        table.append(["train step, trades", *cells])
    return table


def _fast_verdict(results: dict[str, Any]) -> Rows:
    head = ["network", "ball", "seed", "points", "clean", "verdict", "AutoAttack", "reference"]
    table = [[*head, "passes", "time", "AutoAttack's", "stages"]]
    for row in results["rows"]:
        names = ("seed", "points", "clean", "robust", "autoattack")
        reference = "-" if row["reference"] < 0 else str(row["reference"])
        times = (seconds_text(row[name]) for name in ("seconds", "autoattack_seconds"))
        stages = ", ".join(f"{stage['stage']} {stage['robust']}" for stage in row["stages"])
        ball = f"{row['norm']} {row['eps']:.4g}"
        counts = [*(str(row[name]) for name in names), reference, f"{row['share']:.3f}"]
        table.append([row["model"], ball, *counts, *times, stages])
    return table


def _audit(results: dict[str, Any]) -> Rows:
    head = ["network", "eps", "points", "clean", "attack", "leaves", "after the audit", "verdict"]
    table = [[*head, "fell"]]
    for row in results["rows"]:
        names = ("points", "clean", "attack", "before", "after", "verdict")
        fell = "; ".join(f"{count} to {stage}" for stage, count in row["fell"].items()) or "-"
        cells = [row["network"], f"{row['eps']:.4g}", *(str(row[name]) for name in names)]
        table.append([*cells, fell])
    return table


def _distances(results: dict[str, Any]) -> Rows:
    head = ["network", "norm", "attack", "found", "median", "mean", "authors' median", "their mean"]
    table = [[*head, "optimality", "exact area", "passes per point", "time"]]
    for row in results["rows"]:
        names = ("median", "mean", "reference_median", "reference_mean")
        sizes = [f"{value:.4g}" if math.isfinite(value) else "-" for value in _numbers(row, names)]
        shares = [f"{row[name]:.4f}" for name in ("optimality", "optimality_exact_area")]
        passes = f"{row['forwards_per_point']:,.0f} + {row['backwards_per_point']:,.0f}"
        found = f"{row['found']} of {row['points']}"
        cells = [row["model"], row["norm"], row["attack"], found, *sizes, *shares]
        table.append([*cells, passes, seconds_text(row["seconds"])])
    return table


def _minimum_norm_peers(results: dict[str, Any]) -> Rows:
    head = ["attack", "norm", "steps", "found", "median", "time", "theirs found", "their median"]
    table = [[*head, "their time", "theirs over ours"]]
    for row in results["rows"]:
        median, peer_median, peer_seconds = _numbers(row, ("median", "peer_median", "peer_seconds"))
        ours = [f"{row['found']} of {row['points']}", f"{median:.4g}", seconds_text(row["seconds"])]
        theirs = [row["problem"], "-", "-", "-"]
        if not row["problem"]:
            counts = [f"{row['peer_found']} of {row['points']}", f"{peer_median:.4g}"]
            ratio = f"{peer_seconds / row['seconds']:.2f}"
            theirs = [*counts, seconds_text(peer_seconds), ratio]
        table.append([row["attack"], row["norm"], str(row["steps"]), *ours, *theirs])
    return table


def _numbers(row: dict[str, Any], names: tuple[str, ...]) -> list[float]:
    """Values that may be infinite or NaN, which JSON holds as text."""
    return [float(row[name]) for name in names]


def _bounds(results: dict[str, Any]) -> Rows:
    head = ["network", "method", "an image", "auto_LiRPA, elsewhere", "proves up to eps"]
    table = [[*head, "a sign step breaks from"]]
    for row in results["rows"]:
        known = not math.isnan(float(row["reference_seconds"]))
        reference = seconds_text(row["reference_seconds"]) if known else "-"
        times = [seconds_text(row["seconds"]), reference]
        table.append([row["network"], row["method"], *times, "-", "-"])
    for row in results["limits"]:
        radii = [f"{float(row[name]):.2g}" for name in ("radius", "attacked")]
        table.append([row["network"], row["method"], "-", "-", *radii])
    return table


def _faults(results: dict[str, Any]) -> Rows:
    table = [["fault", "commands", "trials", *OUTCOMES.values()]]
    for kind in KINDS:
        rows = [row for row in results["rows"] if row["kind"] == kind]
        found = [row["outcome"] for row in rows]
        counts = [len({row["command"] for row in rows}), len(rows)]
        if rows:
            table.append([kind, *map(str, [*counts, *map(found.count, OUTCOMES)])])
    return table


def _fuzz(results: dict[str, Any]) -> Rows:
    table = [["reader of", "time", "files tried", "edges reached", "found"]]
    for row in results["rows"]:
        counts = [f"{row['files']:,}", f"{row['edges']:,}"]
        time = seconds_text(row["seconds"])
        table.append([f"`{row['reader']}`", time, *counts, row["problem"] or "nothing"])
    return table


def _mutants(results: dict[str, Any]) -> Rows:
    outcomes = ("caught", "endless", "survived")
    table = [["changes in", "tried", "caught", "caught by the time limit", "survived"]]
    for room in dict.fromkeys(row["room"] for row in results["rows"]):
        found = [row["outcome"] for row in results["rows"] if row["room"] == room]
        counts = (len(found), *map(found.count, outcomes))
        table.append([f"`{room}`", *map(str, counts)])
    return table


RENDERED = {
    "audit": _audit,
    "bounds": _bounds,
    "compile": _compile,
    "convolutions": _convolutions,
    "distances": _distances,
    "fast verdict": _fast_verdict,
    "faults": _faults,
    "forms": _forms,
    "fuzz": _fuzz,
    "minimum-norm peers": _minimum_norm_peers,
    "mutants": _mutants,
    "peers": _peers,
    "pytorch": _pytorch,
}
