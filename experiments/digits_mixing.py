"""Mixed classifiers on scikit-learn's digits: what mixing buys, under which attack, for how sure.

Per seed an accurate and a robust network (without and with adversarial training), mixed

1. with constant weights alpha of the robust base (the curve between the two),
2. by a mixing network (Adaptive Smoothing), trained against attackers who know it, and attacked by
   AutoAttack and by attackers who also make it take images for clean,
3. by MixedNUTS, found without training from margins under the MinMargin attack, and attacked by
   AutoAttack through its surrogate,

and certified: l_2 radii of the mixture when the robust base is smoothed by Gaussian noise. Settings
are chosen on held-out training images alone; results are on the 360 test images.

What to look at: how far a point lies above the segment between its two bases, which a coin toss
between them could reach.

Command:  python experiments/digits_mixing.py [--seeds 0 1 2] [--out FOLDER]
          Finished evaluations are kept in the folder and not repeated.
Cost:     11 minutes for three seeds on two CPU cores that were not quite quiet.
Result:   mean of three seeds, in %, clean / AutoAttack / what adaptive attacks leave:
          accurate base 98.6 / 0 / 0, robust base 94.8 / 43.2 / 43.2, constant alpha 0.8 98.1 / 26.9,
          alpha 0.9 96.4 / 35.7, mixing network 97.7 / 39.6 / 37.7, MixedNUTS 95.2 / 41.5 / 40.3.
          Points above the segment, by seed: mixing network +24.1, +26.8, +31.3; alpha 0.8 +14.4,
          +15.1, +34.9; alpha 0.9 +1.2, +9.5, +25.5; alpha 0.6 -1.2, +7.5, +28.8 (there the second
          base is so little robust that a small change of the clean accuracy decides). MixedNUTS
          -5.6, +4.7, +6.5: its search kept all but 0.1 % of the weight on the robust base with seed 0,
          and it never came near the mixing network. (results/digits_mixing.json)
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust import attacks, evaluation, mixing
from jaxrobust.evaluation import provenance, write_json
from jaxrobust.experiment import Experiment, Validation, use
from jaxrobust.training import load_run, train

ROOT = pathlib.Path(__file__).parents[1]
EPS = 0.25
HELD_OUT = 300  # for margins; the networks never see them
ALPHAS = (0.6, 0.8, 0.9, 0.95)
RANGE = (0.8, 0.2)  # alpha_bias and alpha_scale of the mixing network in evaluation
WEIGHTS = (0.02, 0.2)  # of the detector in the adaptive attack
SIGMA, CERTIFIED_ALPHAS = 0.25, (0.6, 0.76, 0.9, 1.0)
# The published search's ranges for CIFAR-10, and how many of the robust base's right predictions
# under attack MixedNUTS has to keep, in percent.
GRID = {"s": np.geomspace(0.05, 5, 8), "c": np.linspace(-1.1, 0, 8), "p": np.linspace(1, 4, 8)}
BETA = 98.5


def experiment(name: str, seed: int, **changes: Any) -> Experiment:
    """A digits network; all that is said here is shared."""
    settings: dict[str, Any] = {
        "model": use("digits_cnn", width=16),
        "optimizer": use("sgd", momentum=0.9, nesterov=True),
        "learning_rate": use("cosine", peak=0.1, warmup_epochs=2),
        "weight_decay": 5e-4,
        "epochs": 40,
        "batch_size": 120,
        "validation": Validation(size=HELD_OUT, every=20),
    }
    return Experiment(
        name=name,
        seed=seed,
        data=use("digits"),
        threat=use("linf", eps=EPS),
        **(settings | changes),
    )


def members(folder: pathlib.Path, seed: int) -> list[Experiment]:
    """Accurate, robust, and the mixing network between them."""
    return [
        experiment(
            "std",
            seed,
            model=use("digits_cnn", width=32),
            objective=use("standard"),
            augment=(use("pad_crop", pad=1),),
        ),
        experiment("rob", seed, objective=use("pgd_at")),
        experiment(
            "mixing",
            seed,
            model=use(
                "mixed_classifier",
                std=str(folder / "std"),
                rob=str(folder / "rob"),
                planes=(16, 32, 32),
            ),
            objective=use("adaptive_smoothing", bce=1.0, ce=0.5, product=0.1, steps=10),
            optimizer=use("adamw", weight_decay=1e-5),
            learning_rate=use("exponential_warmup", peak=1e-2),
            clip_norm=10.0,
            weight_decay=0.0,
            epochs=20,
        ),
    ]


class Rows:
    """Figures by name, kept in a file: what is there is not computed again."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str, compute: Callable[[], Any]) -> Any:
        """The figures of that name."""
        if name not in self.values:
            started = time.perf_counter()
            self.values[name] = compute()
            write_json(self._path, self.values)
            print(f"{name:24} {time.perf_counter() - started:6.1f} s  {summary(self.values[name])}")
        return self.values[name]


def summary(row: Any) -> str:
    """The accuracies of a row, for the terminal."""
    if not isinstance(row, dict):
        return ""
    shown = {k: v for k, v in row.items() if isinstance(v, float)}
    return "  ".join(f"{k} {v:.4g}" for k, v in shown.items())


def autoattack(function: Any, images: np.ndarray, labels: np.ndarray, **options: Any) -> Any:
    """A report of AutoAttack at EPS."""
    return evaluation.autoattack(
        function, images, labels, norm="linf", eps=EPS, batch_size=120, **options
    )


def attacked(function: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Clean accuracy, AutoAttack's, and which images are robust to it."""
    report = autoattack(function, images, labels)
    return {
        "clean": report.clean_accuracy.value,
        "autoattack": report.robust_accuracy.value,
        "robust": np.flatnonzero(next(reversed(report.masks.values()))).tolist(),
        "warnings": [check.name for check in report.checks if not check.passed],
    }


def adaptively(
    function: Any, images: np.ndarray, labels: np.ndarray, robust: list[int]
) -> dict[str, Any]:
    """What is left of some images after the attacks whose loss an adaptive attacker changes."""
    custom = {"version": "custom", "attacks": ["apgd-ce", "apgd-t"]}
    found = autoattack(function, images[robust], labels[robust], **custom)
    left = np.asarray(robust)[next(reversed(found.masks.values()))]
    return {"adaptive": len(left) / len(labels), "robust": left.tolist()}


@functools.partial(jax.jit, static_argnames="steps")
def least_margins(function: Any, images: Any, labels: Any, *, steps: int = 40) -> Any:
    """MinMargin on a base: margins, logits there, and clean logits."""
    found = attacks.min_margin(
        function, jax.random.key(0), images, labels, norm="linf", eps=EPS, steps=steps
    )
    return found.success, function(found.images), function(images), -found.loss


def search(rob: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """MixedNUTS' settings, and the weight for mixing without its transformation."""
    fooled, under_attack, clean, margins = map(np.asarray, least_margins(rob, images, labels))
    right = clean.argmax(-1) == labels
    logits: dict[str, Any] = {
        "attacked_right": under_attack[right & ~fooled],
        "clean_wrong": clean[~right],
    }
    # Where all logits come below the clamp, it turns their order round: such a bias changes classes.
    every = jnp.asarray(np.concatenate([clean, under_attack]))
    kept = [mixing.mixednuts_map(every, s=1.0, p=1.0, c=c).argmax(-1) for c in GRID["c"]]
    usual = every.argmax(-1)
    c = [c for c, classes in zip(GRID["c"], kept, strict=True) if (classes == usual).all()]
    grid: dict[str, Any] = GRID | {"c": c}
    found = mixing.mixednuts_search(**logits, **grid, beta=BETA)
    plain = mixing.mixednuts_search(**logits, s=[1.0], c=[0.0], p=[1.0], beta=BETA, clamp="linear")
    s, bias, p, alpha = found.ties[0]
    return {
        "s": s,
        "c": bias,
        "p": p,
        "alpha": alpha,
        "surrogate_alpha": float(plain.alpha.ravel()[0]),
        "objective": float(found.objective.min()),
        "ties": len(found.ties),
        "attacked_right": int((right & ~fooled).sum()),
        "clean_wrong": int((~right).sum()),
        "least_margins": np.percentile(margins, [5, 25, 50, 75, 95]).round(4).tolist(),
    }


def certified(std: Any, rob: Any, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Radii within which mixtures with the smoothed robust base provably keep the right class."""
    first, second = jax.random.split(jax.random.key(0))
    count = jax.jit(
        lambda f, key, x, samples: mixing.smoothed_counts(
            f, key, x, sigma=SIGMA, samples=samples, batch_size=20
        ),
        static_argnums=3,
    )
    counts = [np.asarray(count(rob, k, images, n)) for k, n in ((first, 100), (second, 2000))]
    bounds = mixing.smoothed_bounds(*counts)
    probabilities = np.asarray(jax.nn.softmax(std(images)))
    votes = counts[1] / counts[1].sum(1, keepdims=True)
    right = bounds.labels == labels
    row: dict[str, Any] = {"radii": {}, "clean": {}}
    for alpha in CERTIFIED_ALPHAS:
        mixture = (1 - alpha) * probabilities + alpha * votes
        row["clean"][str(alpha)] = float((mixture.argmax(1) == labels).mean())
        for formula in ("published", "ours"):
            radius = mixing.certified_radius_smoothing(
                jnp.float32(bounds.lower),
                jnp.float32(bounds.upper),
                alpha=alpha,
                sigma=SIGMA,
                formula=formula,
            )
            kept = np.where(right, np.asarray(radius), 0.0)
            row["radii"][f"{alpha} {formula}"] = np.sort(kept).round(4).tolist()
    return row


def evaluate(folder: pathlib.Path, rows: Rows, seed: int) -> None:
    """Everything of one seed."""
    for config in members(folder, seed):
        if not (folder / config.name / "done").exists():
            train(config, folder / config.name, resume=True)
            (folder / config.name / "done").write_text("")
    runs = {config.name: load_run(folder / config.name) for config in members(folder, seed)}
    std, rob, network = (runs[name].logits_fn for name in ("std", "rob", "mixing"))
    data = runs["std"].dataset
    images, labels = data.floats("test")
    held_images, held_labels = data.held_out(HELD_OUT, seed=seed)[1].floats("test")
    rows.get(f"{seed}/std", lambda: attacked(std, images, labels))
    rows.get(f"{seed}/rob", lambda: attacked(rob, images, labels))
    for alpha in ALPHAS:
        both = mixing.mixed(std, rob, alpha=alpha)
        rows.get(f"{seed}/alpha {alpha}", functools.partial(attacked, both, images, labels))
    settings = rows.get(f"{seed}/search", lambda: search(rob, held_images, held_labels))
    names = ("s", "c", "p", "alpha", "surrogate_alpha")
    nuts = mixing.mixed_nuts(std, rob, **{name: settings[name] for name in names})
    through = mixing.guided(nuts, guide=nuts.surrogate)
    others: dict[str, tuple[Any, list[Any]]] = {"nuts": (nuts, [through])}
    bias, scale = RANGE
    weights = network.params, network.state
    both = network.network.deployed(*weights, alpha_bias=bias, alpha_scale=scale)
    others["network"] = both, [mixing.evading(both, weight=w) for w in WEIGHTS]
    for name, (both, attackers) in others.items():
        row = rows.get(f"{seed}/{name}", functools.partial(attacked, both, images, labels))
        for number, attacker in enumerate(attackers):
            attack = functools.partial(adaptively, attacker, images, labels, row["robust"])
            row = rows.get(f"{seed}/{name} (adaptive {number})", attack)
    rows.get(f"{seed}/certified", lambda: certified(std, rob, images, labels))


def worst_of(rows: Rows, name: str) -> float:
    """AutoAttack's accuracy, or what the adaptive attacks after it left."""
    found = [rows.values[name]["autoattack"]]
    found += [row["adaptive"] for n, row in rows.values.items() if n.startswith(f"{name} (")]
    return min(found)


def above_the_segment(rows: Rows, name: str, seed: int) -> float:
    """How much more robust than a coin toss between the bases that is as accurate."""
    std, rob, row = (rows.values[f"{seed}/{n}"] for n in ("std", "rob", name))
    worst = worst_of(rows, f"{seed}/{name}")
    if rob["clean"] == std["clean"]:
        return worst - max(std["autoattack"], rob["autoattack"])
    share = (row["clean"] - std["clean"]) / (rob["clean"] - std["clean"])
    return worst - std["autoattack"] - share * (rob["autoattack"] - std["autoattack"])


def table(rows: Rows, seeds: list[int]) -> list[dict[str, Any]]:
    """Per mixture, over the seeds: accuracies and the height above the segment."""
    found = []
    for full, first in rows.values.items():
        seed, _, name = full.partition("/")
        if seed != str(seeds[0]) or "autoattack" not in first:
            continue
        each = [rows.values[f"{s}/{name}"] for s in seeds]
        line = {key: [round(row[key], 4) for row in each] for key in ("clean", "autoattack")}
        line["adaptive"] = [round(worst_of(rows, f"{s}/{name}"), 4) for s in seeds]
        line["heights"] = [round(above_the_segment(rows, name, s), 4) for s in seeds]
        found.append({"name": name, **line})
    return found


def draw(path: pathlib.Path, lines: list[dict[str, Any]], certificates: list[Any]) -> None:
    """The plane of clean and attacked accuracy, and certified accuracy by radius."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (plane, curve) = plt.subplots(1, 2, figsize=(13, 5.2), layout="constrained")
    means = {
        line["name"]: [100 * np.mean(line[k]) for k in ("clean", "autoattack")] for line in lines
    }
    ends = np.array([means["std"], means["rob"]])
    plane.plot(*ends.T, "k--", linewidth=1, label="coin toss between the bases")
    alphas = np.array([means["std"], *(means[f"alpha {a}"] for a in ALPHAS), means["rob"]])
    plane.plot(*alphas.T, "o-", color="#0072B2", label="constant alpha")
    for alpha, point in zip((0.0, *ALPHAS, 1.0), alphas, strict=True):
        plane.annotate(f"{alpha:g}", point, xytext=(5, 4), textcoords="offset points", fontsize=8)
    others = {
        "nuts": ("s", "#D55E00", "MixedNUTS"),
        "network": ("^", "#009E73", f"mixing network, alpha in ({RANGE[0]}, {sum(RANGE):g})"),
    }
    for name, (marker, colour, label) in others.items():
        line = next(line for line in lines if line["name"] == name)
        x, adaptive = 100 * np.mean(line["clean"]), 100 * np.mean(line["adaptive"])
        style: dict[str, Any] = {"color": colour, "markersize": 9}
        plane.plot(x, adaptive, marker, **style, label=f"{label}, adaptive attack")
        plane.plot([x, x], [adaptive, means[name][1]], color=colour, linewidth=1)
        plane.plot(x, means[name][1], marker, **style, fillstyle="none")
    plane.set(xlabel="clean accuracy (%)", ylabel=f"accuracy under AutoAttack (%), linf eps {EPS}",
              title=f"digits, mean over seeds: {len(lines[0]['clean'])} (hollow: AutoAttack as it is)")  # fmt: skip
    plane.legend(fontsize=8)
    plane.grid(alpha=0.3)
    radii = np.linspace(0, 0.8, 161)
    for alpha, colour in zip(
        CERTIFIED_ALPHAS, ("#CC79A7", "#009E73", "#D55E00", "#0072B2"), strict=True
    ):
        for formula, dash in (("published", "--"), ("ours", "-")):
            values = np.concatenate([row["radii"][f"{alpha} {formula}"] for row in certificates])
            share = [100 * (values > r).mean() for r in radii]
            named = f"alpha {alpha}" if formula == "ours" else None
            curve.plot(radii, share, dash, color=colour, label=named)
    curve.plot([], [], "k--", label="published radius")
    curve.plot([], [], "k-", label="our radius")
    curve.set(xlabel="l_2 radius (image units)", ylabel="certified accuracy (%)", ylim=(0, 100),
              title=f"robust base smoothed with sigma {SIGMA}, confidence 99.9 %")  # fmt: skip
    curve.legend(fontsize=8)
    curve.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Trains, evaluates and draws."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "digits_mixing")
    parser.add_argument("--results", type=pathlib.Path, help="also write the rows there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.out / "rows.json")
    for seed in options.seeds:
        evaluate(options.out / f"seed{seed}", rows, seed)
    lines = table(rows, options.seeds)
    for line in lines:
        shown = {k: np.mean(line[k]) for k in ("clean", "autoattack", "adaptive")}
        text = "  ".join(f"{k} {100 * v:5.2f}" for k, v in shown.items())
        heights = ", ".join(f"{100 * h:+.2f}" for h in line["heights"])
        print(f"{line['name']:14} {text:50} above the segment by {heights}")
    certificates = [rows.values[f"{seed}/certified"] for seed in options.seeds]
    draw(options.out / "digits_mixing.png", lines, certificates)
    searches = {str(seed): rows.values[f"{seed}/search"] for seed in options.seeds}
    results = {"eps": EPS, "seeds": options.seeds, "lines": lines, "searches": searches,
               "provenance": provenance()}  # fmt: skip
    write_json(options.results or options.out / "results.json", results)
    print(options.out / "digits_mixing.png")


if __name__ == "__main__":
    main()
