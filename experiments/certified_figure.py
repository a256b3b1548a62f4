"""Draws docs/figures/digits_certified.png from the rows of digits_certified.

The bands of four networks over eps (certified, truth in between, attacked), and the front: certified
against clean accuracy, with AutoAttack above each point.

Command:  python experiments/certified_figure.py [--rows FILE] [--out FILE]
"""

import argparse
import json
import pathlib
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
ROWS = ROOT / "experiments" / "results" / "digits_certified.json"
FIGURE = ROOT / "docs" / "figures" / "digits_certified.png"
EPS = 0.1
SHOWN = ("standard", "PGD-AT", "TRADES", "IBP")
COLOURS = ("#D55E00", "#CC79A7", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#000000", "#999999")


def read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Clean and AutoAttack accuracy and the bracket's points of each member, first seed."""
    found = {}
    for name, member in json.loads(path.read_text())["members"].items():
        rows = {row["kind"]: row for row in member["runs"][0]["rows"]}
        numbers = {n["column"]: n["value"] for n in rows["autoattack"]["numbers"]}
        (attacked,) = (v for k, v in numbers.items() if k.startswith("AutoAttack"))
        points = rows["bracket"]["detail"]["points"]
        every = rows.get("pgd", rows["autoattack"])["numbers"]  # all test images
        (whole,) = (n["value"] for n in every if n["column"] == "clean")
        found[name] = {
            "clean": numbers["clean"],
            "whole": whole,
            "autoattack": attacked,
            "points": points,
        }
    return found


def band(axes: Any, points: list[dict[str, Any]], clean: float, colour: str, name: str) -> None:
    """One network's band over eps, from its clean accuracy at 0 on."""
    eps = [0.0] + [point["eps"] for point in points]
    low, high = (
        [100 * clean] + [100 * point[side]["value"] for point in points]
        for side in ("certified", "attacked")
    )
    axes.fill_between(
        eps, low, high, color=colour, alpha=0.25, linewidth=0, label="truth in between"
    )
    axes.plot(eps, low, "o-", color=colour, markersize=4, label="certified")
    axes.plot(eps, high, "v--", color=colour, markersize=4, label="attacked")
    axes.set(title=name, ylim=(0, 102), xlim=(0, eps[-1]))
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)


def front(axes: Any, members: dict[str, dict[str, Any]]) -> None:
    """Certified accuracy at eps against clean accuracy; a line up to AutoAttack's."""
    for (name, one), colour in zip(members.items(), COLOURS, strict=False):
        (point,) = (p for p in one["points"] if abs(p["eps"] - EPS) < 1e-9)
        x, low, high = (
            100 * v for v in (one["whole"], point["certified"]["value"], one["autoattack"])
        )
        axes.plot([x, x], [low, high], color=colour, linewidth=1)
        axes.plot(x, low, "o", color=colour, label=name)
        axes.plot(x, high, "v", color=colour, fillstyle="none")
    axes.set(
        title=f"l_inf eps {EPS:g}: certified (dot), AutoAttack (triangle)",
        xlabel="clean accuracy, all test images (%)", ylabel="accuracy (%)", ylim=(-2, 102),
    )  # fmt: skip
    axes.legend(fontsize=8, loc="center left")
    axes.grid(alpha=0.3)


def draw(path: pathlib.Path, members: dict[str, dict[str, Any]]) -> None:
    """The figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(14, 6.4), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1.35, 1))
    left, right = parts
    shown = [name for name in SHOWN if name in members]
    for axes, name, colour in zip(left.subplots(2, 2).flat, shown, COLOURS, strict=False):
        one = members[name]
        band(axes, one["points"], one["clean"], colour, name)
    left.supxlabel("l_inf eps (image units)", fontsize=10)
    left.supylabel("accuracy (%)", fontsize=10)
    front(right.subplots(), members)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Reads and draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=pathlib.Path, default=ROWS)
    parser.add_argument("--out", type=pathlib.Path, default=FIGURE)
    options = parser.parse_args()
    draw(options.out, read(options.rows))


if __name__ == "__main__":
    main()
