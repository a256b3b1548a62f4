"""One attack step against ten at equal cost: the table of docs/recipes.md, and its figure.

Accuracies are of the rows of mnist_one_step, cifar10_one_step and cifar10_narrow. The cost of a training is its number
of images over the images per second of `jaxrobust bench throughput`, on two cores; the seconds that the
trainings took depend on what else ran.

Command:  python experiments/one_step_figure.py [--draw | --write]
"""

import argparse
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
FIGURE = ROOT / "docs" / "figures" / "one_step.png"
PAGE = ROOT / "docs" / "recipes.md"
MARK = "<!-- python experiments/one_step_figure.py -->"
NAMES = {
    "mnist_one_step": "MNIST, l_inf 0.2",
    "cifar10_one_step": "CIFAR-10 (JPEG), l_inf 8/255",
    "cifar10_narrow": "the same, narrow PreActResNet-18",
}
HEAD = (
    "data",
    "method",
    "images/s",
    "epochs",
    "core-minutes",
    "clean",
    "AutoAttack",
    "points per core-minute",
)


class Method(NamedTuple):
    """What a method reached.

    Attributes:
      name: of the member.
      images_per_second: of its train step.
      epochs: of its training.
      core_minutes: of one training.
      clean: accuracy in percent of all test images, for each seed.
      autoattack: accuracy in percent of the attacked ones, for each seed.
    """

    name: str
    images_per_second: float
    epochs: int
    core_minutes: float
    clean: list[float]
    autoattack: list[float]


def read(name: str, folder: pathlib.Path = RESULTS) -> list[Method]:
    """The methods of an experiment, from its rows and from the benchmark of its steps."""
    members = json.loads((folder / f"{name}.json").read_text())["members"]
    bench = json.loads((folder / f"bench_{name}.json").read_text())
    speeds = {row["experiment"]: row["images_per_second"] for row in bench["rows"]}
    cores = bench["machine"]["cores"]
    return [_method(member, one["runs"], speeds[member], cores) for member, one in members.items()]


def _method(name: str, runs: list[dict[str, Any]], speed: float, cores: int) -> Method:
    config = runs[0]["experiment"]
    examples = int(config["data"]["kwargs"]["train_split"].split(":")[1].strip("]"))
    batch = config["batch_size"]
    images = config["epochs"] * ((examples - config["validation"]["size"]) // batch) * batch
    found: dict[str, list[float]] = {"pgd": [], "autoattack": []}
    for run in runs:
        for row in run["rows"]:
            numbers = row["numbers"]
            wanted = "clean" if row["kind"] == "pgd" else "AutoAttack"
            (value,) = (n["value"] for n in numbers if n["column"].startswith(wanted))
            found[row["kind"]].append(100 * value)
    minutes = images / speed / 60 * cores
    return Method(name, speed, config["epochs"], minutes, found["pgd"], found["autoattack"])


def table(methods: dict[str, list[Method]]) -> str:
    """Markdown, without a line break at its end: means and standard deviations over the seeds."""
    rows = [HEAD, ("---",) * len(HEAD)]
    for name, found in methods.items():
        for m in sorted(found, key=lambda m: -np.mean(m.autoattack)):
            clean, attacked = (f"{np.mean(x):.1f} ±{np.std(x, ddof=1):.1f}" for x in m[4:])
            rows.append(
                (
                    NAMES[name], m.name, f"{m.images_per_second:,.0f}", str(m.epochs),
                    f"{m.core_minutes:.2f}", clean, attacked,
                    f"{np.mean(m.autoattack) / m.core_minutes:.1f}",
                )
            )  # fmt: skip
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def draw(path: pathlib.Path, methods: dict[str, list[Method]]) -> None:
    """Points of robust accuracy per core-minute, and both accuracies, by method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(
        2, len(methods), figsize=(14, 7), sharex="col", squeeze=False, layout="constrained",
        width_ratios=[2 + len(found) for found in methods.values()],
    )  # fmt: skip
    for (name, found), (above, below) in zip(methods.items(), panels.T, strict=True):
        found = sorted(found, key=lambda m: -np.mean(m.autoattack))
        colours = ["#D55E00" if "-10" in m.name else "#0072B2" for m in found]
        for at, (m, colour) in enumerate(zip(found, colours, strict=True)):
            above.plot(at, np.mean(m.clean), "o", color=colour, fillstyle="none", markersize=9)
            above.plot(at, np.mean(m.autoattack), "v", color=colour, markersize=9)
            above.plot([at] * len(m.clean), m.clean, "_", color=colour)
            above.plot([at] * len(m.autoattack), m.autoattack, "_", color=colour)
            below.bar(at, np.mean(m.autoattack) / m.core_minutes, color=colour)
        minutes = np.mean([m.core_minutes for m in found])
        above.set(ylim=(0, 102))
        above.set_title(NAMES[name].replace(", ", ",\n") + f"\n{minutes:.1f} core-minutes each")
        below.set_xticks(range(len(found)), [m.name for m in found], rotation=30)
        for axes in (above, below):
            axes.grid(axis="y", alpha=0.3)
    panels[0, 0].set_ylabel("clean (circle), AutoAttack (triangle), %")
    panels[1, 0].set_ylabel("AutoAttack, points per core-minute")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Prints the table, puts it into the page, or draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--draw", action="store_true", help="draw docs/figures/one_step.png")
    parser.add_argument("--write", action="store_true", help="replace the table in the page")
    options = parser.parse_args()
    methods = {name: read(name) for name in NAMES}
    if options.draw:
        draw(FIGURE, methods)
    elif options.write:
        before, after = PAGE.read_text().split(f"{MARK}\n\n")
        rest = after[after.index("\n\n") :]
        PAGE.write_text(f"{before}{MARK}\n\n{table(methods)}{rest}")
    else:
        print(table(methods))


if __name__ == "__main__":
    main()
