"""SCORE's theory, checked by numbers: the 1-D toy, the sandwich, and where it fails.

1. The toy: two Gaussian classes on the line whose p_d(y|x) is known, a small network trained
   in four modes with D = KL. Madry's target p_d(y|x) at x' makes the output flatter than the
   labels are; the consistent target p_d(y|x') does not.
2. R_Madry - C <= R_SCORE <= R_Madry + C for metrics, for every trained network, with one shared
   maximum over a grid; R_SCORE(p_d) = 0 while R_Madry(p_d) = C > 0.
3. The same inequality fails for KL, JS and the squared error: the worst of all two-point
   problems on a grid of probabilities.
4. Pinsker's inequality, and |p - q|_2^2 <= |p - q|_1^2.

The paper draws 60,000 fresh points for each of 500 steps (--paper); the default draws 3,000.

Command:  python experiments/theory_score.py [--paper] [--steps 500] [--out FOLDER]
Cost:     about 45 s on two busy CPU cores; 23 minutes with --paper at the lowest priority.
Result:   all 24 checks pass. Mean |p(0|x) - p_d(0|x)|: standard .0023, PGD-AT with the label of
          x .037, with the label of x' .0023, TRADES .043 (--paper: .0021, .038, .0022, .042).
          p_d(0|x) falls to .562, PGD-AT with the label of x to .642, TRADES to .662. KL exceeds
          the sandwich by 2.07 at worst.
"""

import argparse
import functools
import pathlib
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from rich.progress import Progress

from jaxrobust import losses, theory
from jaxrobust.evaluation import Check, provenance, write_json

ROOT = pathlib.Path(__file__).parents[1]
TOY = theory.GaussianToy()
EPS = 1.0
LABELS = {
    "standard": "standard",
    "pgd_at": "PGD-AT, label of x",
    "pgd_at_consistent": "PGD-AT, label of x' (SCORE)",
    "trades": "TRADES, lambda 1",
}
COLOURS = dict(zip(theory.MODES, ("#009E73", "#D55E00", "#0072B2", "#CC79A7"), strict=True))
METRICS = ("l1", "l2", "linf", "sqrt_js")
OTHERS = ("kl", "js", "squared_error")
OPTIMIZER = optax.adam(1e-3)
GRID = np.linspace(-6, 6, 481)[:, None]
ENOUGH_STEPS = 400  # with fewer the networks are not trained, and their curves say nothing


@functools.partial(jax.jit, static_argnames=("mode", "samples"))
def train_steps(
    params: Any, state: Any, first: Array, count: Array, *, mode: Any, samples: int
) -> tuple[Any, Any]:
    """`count` steps on fresh points, the attack from U(-1, 1)."""

    def step(number: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        params, state = carry
        x_key, start_key = jax.random.split(jax.random.fold_in(jax.random.key(1), number))
        x = TOY.sample(x_key, samples)
        start = jax.random.uniform(start_key, x.shape, minval=-EPS, maxval=EPS)

        def loss(p: Any) -> Array:
            return theory.toy_loss(p, x, start, mode=mode, labels_fn=TOY.label_logits).mean()

        updates, state = OPTIMIZER.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(first, first + count, step, (params, state))


def train_all(steps: int, samples: int) -> dict[str, Any]:
    """The network of each mode, all from one initialisation."""
    networks: dict[str, Any] = {}
    with Progress() as progress:
        for mode in theory.MODES:
            params = theory.init_toy_network(jax.random.key(0))
            state = OPTIMIZER.init(params)
            task = progress.add_task(LABELS[mode], total=steps)
            for first in range(0, steps, 25):
                count = min(25, steps - first)
                params, state = jax.block_until_ready(
                    train_steps(params, state, first, count, mode=mode, samples=samples)
                )
                progress.advance(task, count)
            networks[mode] = params
    return networks


def probability(logits: Array) -> np.ndarray:
    """p(y=0|x)."""
    return np.asarray(jax.nn.softmax(logits)[..., 0])


def in_double(params: Any) -> Any:
    """Parameters in float64."""
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)


def curves(networks: dict[str, Any], *, trained: bool) -> tuple[list[Check], dict[str, Any]]:
    """p(y=0|x) of every network, how far from Bayes it is, and how deep it dips."""
    bayes = probability(TOY.label_logits(jnp.asarray(GRID)))
    found: dict[str, Any] = {"bayes": bayes}
    x = TOY.sample(jax.random.key(3), 20_000, dtype=jnp.float64)
    labels = probability(TOY.label_logits(x))
    rows = {}
    for mode, params in networks.items():
        outputs = functools.partial(theory.toy_logits, in_double(params))
        found[mode] = probability(outputs(jnp.asarray(GRID)))
        middle = np.abs(GRID[:, 0]) <= 5
        rows[mode] = {
            "distance": float(np.abs(probability(outputs(x)) - labels).mean()),
            "least": float(found[mode][middle].min()),
        }
    found["rows"] = rows
    if not trained:
        return [], found
    dip, flat = 1 - float(bayes.min()), 1 - rows["pgd_at"]["least"]
    near = rows["pgd_at_consistent"]["distance"]
    ratio = rows["pgd_at"]["distance"] / near
    return [
        Check("standard is Bayes", rows["standard"]["distance"] < 0.02,
              rows["standard"]["distance"], 0.02, "mean |p(0|x) - p_d(0|x)|"),
        Check("PGD-AT, label of x', is Bayes", near < 0.02, near, 0.02, "mean |p(0|x) - p_d(0|x)|"),
        Check("PGD-AT, label of x, is not Bayes", ratio > 2, ratio, 2, "its distance to Bayes, in those of label of x'"),
        Check("PGD-AT, label of x, is flatter", flat < 0.95 * dip, flat / dip, 0.95, "depth of its dip, in Bayes' depths"),
    ], found  # fmt: skip


def sandwiches(networks: dict[str, Any]) -> tuple[list[Check], list[dict[str, Any]]]:
    """Both sides for every network and measure; for p_d itself R_SCORE = 0, R_Madry = C."""
    x = TOY.sample(jax.random.key(2), 300, dtype=jnp.float64)
    moves = jnp.linspace(-EPS, EPS, 41)[:, None]
    checks, rows = [], []
    for measure in (*METRICS, *OTHERS):
        find = functools.partial(
            theory.sandwich, x, moves, labels_fn=TOY.label_logits, measure=measure
        )
        slacks = []
        for mode, params in networks.items():
            found = find(outputs_fn=functools.partial(theory.toy_logits, in_double(params)))
            madry, score, constant = (float(v.mean()) for v in found)
            slacks.append(float(found.slack.min()))
            rows.append(
                {"measure": measure, "mode": mode, "madry": madry, "score": score,
                 "constant": constant, "slack": slacks[-1]}
            )  # fmt: skip
        if measure in METRICS:
            least = min(slacks)
            checks.append(
                Check(
                    f"sandwich, {measure}", least > -1e-9, least, -1e-9, "least slack, all networks"
                )
            )
        labels = find(outputs_fn=TOY.label_logits)
        score = float(labels.score.max())
        constant = float(labels.constant.mean())
        gap = float(jnp.abs(labels.madry - labels.constant).max())
        checks.append(
            Check(f"p_d itself, {measure}", score < 1e-7 and gap == 0 and constant > 0.01, score, 1e-7,
                  f"largest SCORE error; R_Madry = C = {constant:.4f}")
        )  # fmt: skip
    return checks, rows


def counterexamples() -> tuple[list[Check], dict[str, dict[str, float]]]:
    """The largest violation of either side by any two-point problem, per measure."""
    checks, table = [], {}
    for measure in (*METRICS, *OTHERS):
        sides = {s: theory.largest_violation(measure, side=s) for s in ("madry", "score")}
        table[measure] = {s: float(f.violation) for s, f in sides.items()}
        largest = max(table[measure].values())
        if measure in METRICS:
            checks.append(
                Check(
                    f"no counterexample, {measure}",
                    largest < 1e-7,
                    largest,
                    1e-7,
                    "largest violation",
                )
            )
            continue
        p, moved, q, _ = (float(v) for v in sides["madry"])
        example = f"p_d(x) {p:.2f}, p_d(x') {moved:.2f}, output at x' {q:.2f}"
        passed = min(table[measure].values()) > 0.1
        text = f"R_Madry - R_SCORE - C; {example}"
        checks.append(
            Check(f"counterexample, {measure}", passed, table[measure]["madry"], 0.1, text)
        )
    return checks, table


def pinsker(networks: dict[str, Any]) -> list[Check]:
    """Pinsker and the order of norms, on random pairs and on outputs against labels."""
    draw = np.random.default_rng(0)
    pairs = [tuple(jnp.asarray(v) for v in draw.normal(size=(2, 5000, 10)) * 3)]
    x = jnp.asarray(GRID)
    pairs += [(TOY.label_logits(x), theory.toy_logits(in_double(p), x)) for p in networks.values()]
    first = min(float(theory.pinsker_slack(p, q).min()) for p, q in pairs)
    l2, l1 = losses.distance("squared_error"), losses.distance("l1_squared")
    second = min(float((l1(p, q) - l2(p, q)).min()) for p, q in pairs)
    return [
        Check("Pinsker", first > -1e-12, first, -1e-12, "least KL - |p - q|_1^2 / 2"),
        Check("order of norms", second > -1e-12, second, -1e-12, "least |p - q|_1^2 - |p - q|_2^2"),
    ]


def draw(
    path: pathlib.Path,
    found: dict[str, Any],
    rows: list[dict[str, Any]],
    table: dict[str, dict[str, float]],
) -> None:
    """Curves, sandwich and counterexamples as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 3, figsize=(16.5, 5.2), layout="constrained", width_ratios=(1.15, 1.25, 1)
    )
    axis = axes[0]
    axis.plot(GRID, found["bayes"], "k--", linewidth=2.5, label="p_d, Bayes")
    for mode in theory.MODES:
        axis.plot(GRID, found[mode], color=COLOURS[mode], label=LABELS[mode])
    axis.set(xlabel="x", ylabel="p(y=0 | x)", xlim=(-6, 6), title="SCORE's toy, D = KL, eps 1")
    axis.legend(loc="lower left", fontsize=9)
    axis = axes[1]
    for number, row in enumerate(row for row in rows if row["measure"] in METRICS):
        place = number + number // len(theory.MODES)
        colour = COLOURS[row["mode"]]
        axis.errorbar(
            place, row["madry"], yerr=row["constant"], color=colour, capsize=5, linewidth=2
        )
        axis.plot(place, row["score"], "o", color=colour, markersize=7, mec="k")
    width = len(theory.MODES) + 1
    axis.set_xticks([width * i + 1.5 for i in range(len(METRICS))], METRICS)
    axis.plot([], [], "ko", label="R_SCORE")
    axis.errorbar([], [], yerr=[], color="k", capsize=5, label="R_Madry - C to R_Madry + C")
    axis.set(ylabel="risk", title="the sandwich, for metrics\n(colours: the networks on the left)")
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1.2 * axis.get_ylim()[1])
    axis.legend(loc="upper right", fontsize=9)
    axis = axes[2]
    places = np.arange(len(table))
    for side, offset, colour, label in (
        ("madry", 0.19, "#D55E00", "R_Madry - (R_SCORE + C)"),
        ("score", -0.19, "#0072B2", "R_SCORE - (R_Madry + C)"),
    ):
        bars = axis.barh(
            places + offset, [row[side] for row in table.values()], 0.36, color=colour, label=label
        )
        axis.bar_label(
            bars, [f"{max(row[side], 0):.2f}" for row in table.values()], padding=2, fontsize=9
        )
    axis.set_yticks(places, list(table))
    axis.set(xlabel="largest violation by a two-point problem",
             xlim=(0, 1.15 * max(v for row in table.values() for v in row.values())),
             title="where the sandwich fails")  # fmt: skip
    axis.invert_yaxis()
    axis.legend(loc="upper right", fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Trains, checks and draws; the exit status is 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=500, help="training steps, the paper's by default"
    )
    parser.add_argument("--samples", type=int, default=3000, help="fresh points in each step")
    parser.add_argument(
        "--paper",
        action="store_const",
        const=60_000,
        dest="samples",
        help="the paper's 60,000 points",
    )
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "runs" / "theory_score")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    networks = train_all(options.steps, options.samples)
    trained = options.steps >= ENOUGH_STEPS
    with jax.enable_x64(True):
        checks, found = curves(networks, trained=trained)
        sandwich_checks, rows = sandwiches(networks)
        example_checks, table = counterexamples()
        checks += sandwich_checks + example_checks + pinsker(networks)
    draw(options.out / "theory_score.png", found, rows, table)
    for mode, row in found["rows"].items():
        print(
            f"{LABELS[mode]:30} mean |p - p_d| {row['distance']:.4f}  least p(0|x) {row['least']:.3f}"
        )
    print(f"{'p_d, Bayes':30} {'':21}  least p(0|x) {found['bayes'].min():.3f}")
    print(f"\n{'measure':14} {'network':30} {'R_Madry-C':>10} {'R_SCORE':>10} {'R_Madry+C':>10}")
    for row in rows:
        low, high = (row["madry"] + sign * row["constant"] for sign in (-1, 1))
        print(
            f"{row['measure']:14} {LABELS[row['mode']]:30} {low:10.4f} {row['score']:10.4f} {high:10.4f}"
        )
    print()
    for check in checks:
        print(
            f"{'pass' if check.passed else 'FAIL'}  {check.name:34} {check.value:10.3g}  {check.message}"
        )
    if not trained:
        print(f"the curves are not checked with fewer than {ENOUGH_STEPS} steps")
    seconds = time.perf_counter() - started
    results = {"checks": [c._asdict() for c in checks], "curves": found["rows"], "sandwich": rows,
               "violations": table, "steps": options.steps, "samples": options.samples,
               "seconds": round(seconds, 1), "provenance": provenance()}  # fmt: skip
    write_json(options.out / "results.json", results)
    failed = sum(not check.passed for check in checks)
    print(
        f"{len(checks) - failed} of {len(checks)} checks pass, {seconds:.0f} s; {options.out / 'theory_score.png'}"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
