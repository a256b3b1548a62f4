"""Draws docs/figures/one_step.png from the rows of mnist_one_step and cifar10_one_step, and a table.

Robust accuracy per core-minute of training: what the methods' images cost was measured on a quiet
machine (`jaxrobust bench throughput`), since the rows' own seconds may be of a busy one.

Command:  python experiments/one_step_figure.py [--table] [--out FILE]
"""

import argparse
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
FIGURE = ROOT / "docs" / "figures" / "one_step.png"
TITLES = {
    "mnist_one_step": "MNIST, l_inf eps 0.2",
    "cifar10_one_step": "CIFAR-10 (JPEG re-encoding), l_inf eps 8/255",
}


class Method(NamedTuple):
    """A method's accuracies over seeds, and its cost.

    Attributes:
      data: of the comparison: a key of `TITLES`.
      name: the method's.
      epochs: of training.
      images_per_second: of its train step, on a quiet machine.
      core_minutes: of training.
      clean: `[seeds]` in per cent, first 1,000 test images.
      autoattack: `[seeds]` in per cent, first test images.
    """

    data: str
    name: str
    epochs: int
    images_per_second: float
    core_minutes: float
    clean: np.ndarray
    autoattack: np.ndarray

    @property
    def per_minute(self) -> float:
        """Points of accuracy under AutoAttack per core-minute, mean over seeds."""
        return float(self.autoattack.mean() / self.core_minutes)


def read(name: str) -> list[Method]:
    """The methods of a comparison."""
    rates = _rates(name)
    members = json.loads((RESULTS / f"{name}.json").read_text())["members"]
    return [_method(name, member, runs["runs"], rates[member]) for member, runs in members.items()]


def _rates(name: str) -> dict[str, dict[str, Any]]:
    """Throughput by method, and the machine's cores."""
    results = json.loads((RESULTS / f"bench_{name}.json").read_text())
    cores = results["machine"]["cores"]
    return {row["experiment"]: row | {"cores": cores} for row in results["rows"]}


def _method(data: str, name: str, runs: list[dict[str, Any]], rate: dict[str, Any]) -> Method:
    experiment = runs[0]["experiment"]
    images = experiment["data"]["kwargs"]["train_split"].strip("train[:]")
    held_out = experiment["validation"]["size"]
    seen = (int(images) - held_out) * experiment["epochs"]
    seconds = seen / rate["images_per_second"]
    columns = [_numbers(run["rows"]) for run in runs]
    clean, robust = (100 * np.asarray([pair[i] for pair in columns]) for i in (0, 1))
    minutes = seconds * rate["cores"] / 60
    return Method(
        data, name, experiment["epochs"], rate["images_per_second"], minutes, clean, robust
    )


def _numbers(rows: list[dict[str, Any]]) -> tuple[float, float]:
    """Clean accuracy on all test images, and AutoAttack's on the first."""
    by_kind = {row["kind"]: {n["column"]: n["value"] for n in row["numbers"]} for row in rows}
    (robust,) = (v for k, v in by_kind["autoattack"].items() if k.startswith("AutoAttack"))
    return by_kind["pgd"]["clean"], robust


def spread(values: np.ndarray) -> str:
    """Mean and half the range over seeds."""
    return f"{values.mean():.1f} ±{np.ptp(values) / 2:.1f}"


def table(methods: list[Method]) -> str:
    """The comparison as Markdown."""
    head = ["data", "method", "epochs", "images/s", "core-minutes", "clean", "AutoAttack"]
    lines = [[*head, "points per core-minute"], ["---"] * (len(head) + 1)]
    for m in methods:
        cells = [f"{m.images_per_second:,.0f}", f"{m.core_minutes:.2f}", spread(m.clean)]
        cells += [spread(m.autoattack), f"{m.per_minute:.1f}"]
        lines.append([TITLES[m.data], m.name, str(m.epochs), *cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines).replace(" --- ", "---")


def draw(path: pathlib.Path, comparisons: list[list[Method]]) -> None:
    """A panel per data set: AutoAttack per core-minute, and both accuracies beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        len(comparisons),
        2,
        figsize=(11, 3.6 * len(comparisons)),
        layout="constrained",
        squeeze=False,
    )
    for (left, right), methods in zip(panels, comparisons, strict=True):
        ordered = sorted(methods, key=lambda m: m.per_minute)
        places, names = np.arange(len(ordered)), [m.name for m in ordered]
        left.barh(places, [m.per_minute for m in ordered], color="#0072B2")
        left.set(
            title=TITLES[methods[0].data], xlabel="AutoAttack accuracy per core-minute (points)"
        )
        left.set_yticks(places, names)
        for label, colour, marker, shift in (
            ("clean", "#D55E00", "o", 0.12), ("autoattack", "#0072B2", "v", -0.12)
        ):  # fmt: skip
            for m, place in zip(ordered, places, strict=True):
                values = getattr(m, label)
                y = place + shift
                right.plot([values.min(), values.max()], [y, y], color=colour, linewidth=1)
                right.plot(values, [y] * len(values), marker, color=colour, markersize=4)
        handles = [
            plt.Line2D([], [], color="#D55E00", marker="o", linestyle="", label="clean"),
            plt.Line2D([], [], color="#0072B2", marker="v", linestyle="", label="AutoAttack"),
        ]
        minutes = [m.core_minutes for m in methods]
        right.legend(handles=handles, fontsize=8)
        right.set(xlabel="accuracy (%), a mark per seed", xlim=(0, 100))
        right.set_title(f"{min(minutes):.1f} to {max(minutes):.1f} core-minutes each", fontsize=10)
        right.set_yticks(places, names)
        for axes in (left, right):
            axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Prints the table, or draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="print the table instead of drawing")
    parser.add_argument("--out", type=pathlib.Path, default=FIGURE)
    options = parser.parse_args()
    comparisons = [read(name) for name in TITLES]
    if options.table:
        print(table([m for methods in comparisons for m in methods]))
    else:
        draw(options.out, comparisons)


if __name__ == "__main__":
    main()
