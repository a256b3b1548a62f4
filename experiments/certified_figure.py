"""Draws docs/figures/digits_certified.png and mnist_certified.png from the rows of these experiments.

Digits: the bands of four networks over eps (certified, truth in between, attacked), and the front:
certified against clean accuracy, with AutoAttack above each point. MNIST: the fronts of the networks
trained for either eps. All numbers are means over the seeds; the marks of one seed are small.

Command:  python experiments/certified_figure.py [--name NAME] [--rows FILE] [--out FILE]
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
BANDS = {"digits_certified": ("standard", "PGD-AT", "TRADES", "IBP"), "mnist_certified": ()}
RADII = {"digits_certified": (0.1,), "mnist_certified": (0.1, 0.3)}
COLOURS = ("#D55E00", "#CC79A7", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#000000", "#999999")


def of_run(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Clean accuracy, of all test images and of the attacked ones, and by eps AutoAttack's and the
    bracket's edges.
    """
    found: dict[str, Any] = {"autoattack": {}}
    for row in rows:
        numbers = {n["column"]: n["value"] for n in row["numbers"]}
        if row["kind"] == "pgd":  # all test images
            found["clean"] = numbers["clean"]
        elif row["kind"] == "autoattack":
            (attacked,) = (v for k, v in numbers.items() if k.startswith("AutoAttack"))
            found["autoattack"][row["detail"]["protocol"]["eps"]] = attacked
            found["first"] = numbers["clean"]
        elif row["kind"] == "bracket":
            points = row["detail"]["points"]
            for side in ("certified", "attacked"):
                found[side] = {point["eps"]: point[side]["value"] for point in points}
    return found


def read(path: pathlib.Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each member, one for each seed."""
    members = json.loads(path.read_text())["members"]
    return {name: [of_run(run["rows"]) for run in one["runs"]] for name, one in members.items()}


def mean(values: Any) -> float:
    """In percent."""
    return float(100 * np.mean(list(values)))


def band(axes: Any, runs: list[dict[str, Any]], colour: str, name: str) -> None:
    """One network's band over eps, from its clean accuracy at 0 on."""
    eps = list(runs[0]["certified"])
    first = mean(run["first"] for run in runs)
    low, high = (
        [first] + [mean(run[side][e] for run in runs) for e in eps]
        for side in ("certified", "attacked")
    )
    eps = [0.0, *eps]
    axes.fill_between(
        eps, low, high, color=colour, alpha=0.25, linewidth=0, label="truth in between"
    )
    axes.plot(eps, low, "o-", color=colour, markersize=4, label="certified")
    axes.plot(eps, high, "v--", color=colour, markersize=4, label="attacked")
    axes.set(title=name, ylim=(0, 102), xlim=(0, eps[-1]))
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)


def front(axes: Any, members: dict[str, list[dict[str, Any]]], eps: float) -> None:
    """Certified accuracy at eps against clean accuracy; a line up to AutoAttack's."""
    for (name, runs), colour in zip(members.items(), COLOURS, strict=False):
        points = [(r["clean"], r["certified"][eps], r["autoattack"][eps]) for r in runs]
        x, low, high = (mean(values) for values in zip(*points, strict=True))
        axes.plot([x, x], [low, high], color=colour, linewidth=1)
        axes.plot(x, low, "o", color=colour, markersize=8, label=name)
        axes.plot(x, high, "v", color=colour, markersize=8, fillstyle="none")
        for clean, certified, attacked in points:
            axes.plot(100 * clean, 100 * certified, "o", color=colour, markersize=3)
            axes.plot(100 * clean, 100 * attacked, "v", color=colour, markersize=3)
    axes.set(
        title=f"l_inf eps {eps:g}: certified (dot), AutoAttack (triangle)",
        xlabel="clean accuracy (%)", ylabel="accuracy (%)", ylim=(-2, 102),
    )  # fmt: skip
    axes.legend(fontsize=8, loc="best")
    axes.grid(alpha=0.3)


def of_radius(members: dict[str, Any], eps: float) -> dict[str, Any]:
    """Members that are trained for a radius, `NAME EPS`, without it; all if none names its radius."""
    own = {n.removesuffix(f" {eps:g}"): m for n, m in members.items() if n.endswith(f" {eps:g}")}
    return own or members


def draw(path: pathlib.Path, name: str, members: dict[str, list[dict[str, Any]]]) -> None:
    """The figure of an experiment."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [member for member in BANDS[name] if member in members]
    figure = plt.figure(figsize=(14, 6.4 if shown else 5), layout="constrained")
    right: Any = figure
    if shown:
        left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))  # type: ignore[misc]
        for axes, member, colour in zip(left.subplots(2, 2).flat, shown, COLOURS, strict=False):
            band(axes, members[member], colour, member)
        left.supxlabel("l_inf eps (image units)", fontsize=10)
        left.supylabel("accuracy (%)", fontsize=10)
    panels = right.subplots(1, len(RADII[name]), squeeze=False).flat
    for axes, eps in zip(panels, RADII[name], strict=True):
        front(axes, of_radius(members, eps), eps)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Reads and draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", choices=BANDS, default="digits_certified")
    parser.add_argument("--rows", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    name = options.name
    rows = options.rows or ROOT / "experiments" / "results" / f"{name}.json"
    draw(options.out or ROOT / "docs" / "figures" / f"{name}.png", name, read(rows))


if __name__ == "__main__":
    main()
