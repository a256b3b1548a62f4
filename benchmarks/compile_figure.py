"""Compile time over the steps of an attack and over the depth of a network, as curves."""

import pathlib
from collections.abc import Sequence
from typing import Any

from benchmarks.compile_table import CompileRow
from jaxrobust.drawing import COLOURS, MARKERS, subplots

FORMS = {
    "rolled": "rolled: one loop over the steps",
    "unrolled": "unrolled: steps one after the other",
    "scanned": "blocks of a stage as a loop too",
}
LOOP_FORMS = ("rolled", "unrolled")
BLOCK_FORMS = ("rolled", "scanned")
PANELS = (
    ("total_cpu_seconds", "trace, lower, compile:\nprocessor time (s)"),
    ("steady_cpu_seconds", "one attack:\nprocessor time (s)"),
)


def draw_compile_curves(path: pathlib.Path, rows: Sequence[CompileRow], *, title: str) -> None:
    """A PNG of PGD's compile time and run time, over its steps and over the network's depth.

    Args:
      path: the file to write.
      rows: of `compile_table` on the cases of `curves`; rows with a problem are left out.
      title: over the figure; names machine and network.

    Returns:
      Nothing; the file is written.

    Raises:
      ValueError: if matplotlib is not installed.
    """
    found = [row for row in rows if not row.problem]
    lowest = min(row.case.depth for row in found)
    steps = _common([row.case.steps for row in found if row.case.form == "scanned"])
    columns = (
        ("steps of PGD", "steps", [r for r in found if r.case.depth == lowest], LOOP_FORMS),
        (
            "depth of the WideResNet (layers)",
            "depth",
            [r for r in found if r.case.steps == steps],
            BLOCK_FORMS,
        ),
    )
    figure, axes = subplots(2, 2, figsize=(9.6, 6.8), sharex="col")
    for column, (label, field, chosen, forms) in enumerate(columns):
        for axis, (name, unit) in zip(axes[:, column], PANELS, strict=True):
            for form in forms:
                _curve(axis, [r for r in chosen if r.case.form == form], form, field, name)
            axis.set_ylim(0, 1.3 * axis.get_ylim()[1])  # room for the legend
            axis.grid(alpha=0.3)
            axis.set_ylabel(unit)
            axis.legend(fontsize=8, loc="upper left")
        axes[1, column].set_xlabel(label)
    axes[0, 0].set_title(f"over the attack's steps, depth {lowest}", fontsize=10)
    axes[0, 1].set_title(f"over the depth, {steps} steps", fontsize=10)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def _curve(axis: Any, rows: Sequence[CompileRow], form: str, field: str, name: str) -> None:
    """Medians, with bars from the lowest to the highest repeat."""
    rows = sorted(rows, key=lambda row: getattr(row.case, field))
    points = [getattr(row.case, field) for row in rows]
    spreads = [row.figures[name] for row in rows]
    number = list(FORMS).index(form)
    label = "blocks one after the other" if field == "depth" and form == "rolled" else FORMS[form]
    axis.errorbar(
        points,
        [spread.median for spread in spreads],
        yerr=[
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ],
        fmt=f"{MARKERS[number]}-",
        color=COLOURS[number],
        markersize=5,
        linewidth=1.4,
        elinewidth=1,
        capsize=2,
        label=label,
    )


def _common(values: Sequence[int]) -> int:
    return max(set(values), key=values.count) if values else 0
